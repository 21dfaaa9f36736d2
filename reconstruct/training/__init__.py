"""Training: data sets, losses, loop.

    dataset ─ draw ─ groups ─┬─ frozen trunk ─ maps/ ──┬─ loop ─ last, best, curves.csv
                             └─ extractor ─── crops/ ──┘

A *group* is a few crops that see the same surface, and which of their cells correspond. What learns
(a `learner.Learner`) is D2-Net's conv4_3 (`head`), behind a trunk up to conv4_2 whose maps can be
computed once and kept (`maps`); or a LightGlue (`matcher`) for the features that an extractor finds
in the crops (`crop_features`).
"""

from __future__ import annotations

from reconstruct.stages import Context, Stage
from reconstruct.training.matcher_settings import MatcherTrainingConfig
from reconstruct.training.settings import TrainingConfig


def build_training(context: Context, config: TrainingConfig) -> list[Stage]:
    """The stages of a training file, in their order."""
    from reconstruct.training.head import Head
    from reconstruct.training.maps import GroupSource, Maps
    from reconstruct.training.train import Train

    source = GroupSource(config, context.device)
    if not config.train.keep_maps:
        return [Train(context, Head(source, None))]
    maps = Maps(context, source)
    return [maps, Train(context, Head(source, maps), [maps])]


def build_matcher_training(context: Context, config: MatcherTrainingConfig) -> list[Stage]:
    """The stages of a file that trains a matcher, in their order."""
    from reconstruct.training.crop_features import CropPairs, Crops
    from reconstruct.training.matcher import Matcher
    from reconstruct.training.train import Train

    crops = Crops(context, CropPairs(config, context.device))
    return [crops, Train(context, Matcher(crops), [crops])]
