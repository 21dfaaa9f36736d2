"""Stage ``crops``: the local features of every crop, computed once, and which of them match.

crops/part-*.h5  key train/00042 or validation/00007: counts (K,) int32 keypoints of each crop,
                 keypoints (N, 2) float32 and descriptors (N, D) float16, crop after crop, pairs
                 (P, 2) int32, mates (M,) int32: for each pair the match of each keypoint of the
                 first crop, then of the second (`reconstruct.training.mates`)
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reconstruct import features
from reconstruct.errors import ConfigError
from reconstruct.features import Extractor
from reconstruct.fingerprints import fingerprint
from reconstruct.stages import Context
from reconstruct.storage.shard_file import Fields
from reconstruct.training.data.groups import Group
from reconstruct.training.draws import TRAIN, VALIDATION, GroupDraws, key
from reconstruct.training.group_stage import GroupStage
from reconstruct.training.matcher_settings import MatcherTrainingConfig
from reconstruct.training.mates import Mates, mates


class Side(NamedTuple):
    """A crop of a pair.

    keypoints: (N, 2) in its pixels. descriptors: (N, D). mates: (N,) see `mates`.
    """

    keypoints: NDArray[np.float32]
    descriptors: NDArray[np.float16]
    mates: Mates


class CropPairs:
    """The pairs of crops of a training file by role and number of their group."""

    def __init__(self, config: MatcherTrainingConfig, device: str) -> None:
        self.config = config
        self.device = device
        train = config.train_matcher
        self.draws = GroupDraws(config.dataset, config.validation, train.shape(), config.seed)

    def __getstate__(self) -> dict[str, Any]:
        # Sent to processes that draw and extract, which load the network for themselves.
        return {name: value for name, value in self.__dict__.items() if name != "extractor"}

    @cached_property
    def extractor(self) -> Extractor:
        """What describes the crops. Raises ConfigError if its descriptors are too short."""
        train = self.config.train_matcher
        extractor = features.create(train.local, self.device)
        if extractor.dim < train.width:
            raise ConfigError(
                f"train_matcher.width: {train.width} is more than the descriptors' {extractor.dim}"
            )
        return extractor

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of all groups and their features, whatever their number."""
        train = self.config.train_matcher
        shape = [train.crop_px, train.min_correspondences, train.near_px, train.far_px]
        data = self.draws.identity()
        return fingerprint("crops", shape, data, self.config.seed, self.extractor.identity())

    def fields(self, group: Group) -> Fields:
        """What is stored of a group."""
        train = self.config.train_matcher
        found = [self.extractor(image) for image in group.images]
        places = [f.keypoints.astype(np.float64) for f in found]
        matched = [
            mates(
                train.shape().layout,
                train.crop_px,
                pair.cells,
                places[pair.first],
                places[pair.second],
                near_px=train.near_px,
                far_px=train.far_px,
                complete=group.complete,
            )
            for pair in group.pairs
        ]
        return {
            "counts": np.array([len(f.keypoints) for f in found], np.int32),
            "keypoints": np.concatenate([f.keypoints for f in found]).astype(np.float32),
            "descriptors": np.concatenate([f.descriptors for f in found]).astype(np.float16),
            "pairs": np.array([(p.first, p.second) for p in group.pairs], np.int32),
            "mates": np.concatenate([part for both in matched for part in both]),
        }


class Crops(GroupStage):
    """The stage."""

    name = "crops"

    def __init__(self, context: Context, source: CropPairs) -> None:
        config = source.config
        counts = {VALIDATION: config.validation.groups, TRAIN: config.train_matcher.groups}
        super().__init__(context, source, counts)
        self.source = source

    def figures(self, made: int) -> dict[str, Any]:
        """How many groups, and keypoints."""
        counts = self.store.lengths("keypoints")
        return {"groups": len(self.keys), "keypoints": sum(counts[k] for k in self.keys)}

    def read(self, role: str, number: int) -> list[tuple[Side, Side]]:
        """The pairs of a group."""
        fields = self.store.read(key(role, number))
        ends = np.cumsum(fields["counts"])[:-1]
        keypoints = np.split(fields["keypoints"], ends)
        descriptors = np.split(fields["descriptors"], ends)
        lengths = fields["counts"][fields["pairs"]].ravel()
        parts = np.split(fields["mates"], np.cumsum(lengths)[:-1])
        sides = [
            Side(keypoints[crop], descriptors[crop], part)
            for crop, part in zip(fields["pairs"].ravel(), parts, strict=True)
        ]
        return list(zip(sides[::2], sides[1::2], strict=True))
