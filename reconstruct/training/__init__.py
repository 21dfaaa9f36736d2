"""Fine-tuning D2-Net: data sets, loss, loop.

    dataset ─ draw ─ groups ─ frozen trunk ─ maps/ ─ loop ─ last, best, curves.csv

A *group* is a few crops that see the same surface, and which of their cells correspond. The trunk
up to conv4_2 does not learn, so its maps can be computed once and kept (`maps`); what learns is
conv4_3.
"""

from __future__ import annotations

from reconstruct.stages import Context, Stage
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
