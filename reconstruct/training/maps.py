"""Stage ``maps``: the output of the frozen trunk for every group, computed once and kept.

    maps/part-*.h5   key train/00042 or validation/00007: maps (K, 512, h, w) float16, pairs (P, 3)
                     int32 (first, second, number of cells), cells (M, 2) int32, pair after pair

Float16 holds the trunk's activations (up to a few thousand) to a relative 5e-4.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reconstruct.features.vgg import LAST
from reconstruct.features.weights import TrunkWeights, load_weights
from reconstruct.fingerprints import fingerprint
from reconstruct.stages import Context
from reconstruct.storage.shard_file import Fields
from reconstruct.torch_device import resolve_device
from reconstruct.training.data.groups import Group
from reconstruct.training.draws import TRAIN, VALIDATION, GroupDraws, key
from reconstruct.training.group_stage import GroupStage
from reconstruct.training.network import FrozenTrunk
from reconstruct.training.settings import TrainingConfig


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """A group as conv4_3 sees it.

    Attributes:
        maps: (K, 512, h, w) float32.
        pairs: Of each pair the two images and the (M, 2) int64 corresponding cells.
    """

    maps: Tensor
    pairs: list[tuple[int, int, Tensor]]


class GroupSource:
    """The groups of a training file by role and number, and the trunk's output for them."""

    def __init__(self, config: TrainingConfig, device: str) -> None:
        self.config = config
        self.device = device

    def __getstate__(self) -> dict[str, Any]:
        # Sent to processes that draw, which need no network.
        return {"config": self.config, "device": self.device}

    @cached_property
    def draws(self) -> GroupDraws:
        """The groups."""
        config = self.config
        return GroupDraws(config.dataset, config.validation, config.train.shape(), config.seed)

    @cached_property
    def weights(self) -> TrunkWeights:
        """The weights that training starts from."""
        return load_weights(self.config.train.weights)

    @cached_property
    def trunk(self) -> FrozenTrunk:
        """The part of the network that does not learn."""
        train = self.config.train
        return FrozenTrunk(self.weights, train.layout, train.precision, resolve_device(self.device))

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of all groups and their maps, whatever their number."""
        train = self.config.train
        shape = [train.layout, train.crop_px, train.min_correspondences, train.precision]
        trunk = {k: v for k, v in self.weights.tensors.items() if not k.startswith(LAST)}
        network = TrunkWeights(trunk, self.weights.preprocessing).content_hash()
        return fingerprint("maps", shape, self.draws.identity(), self.config.seed, network)

    def example(self, group: Group) -> Example:
        """The output of the trunk for a group."""
        pairs = [(p.first, p.second, torch.from_numpy(p.cells).long()) for p in group.pairs]
        return Example(self.trunk(group.images), pairs)

    def fields(self, group: Group) -> Fields:
        """What is stored of a group."""
        example = self.example(group)
        rows = [(first, second, len(cells)) for first, second, cells in example.pairs]
        cells = np.concatenate([cells.numpy() for *_, cells in example.pairs])
        return {
            "maps": example.maps.cpu().numpy().astype(np.float16),
            "pairs": np.array(rows, np.int32).reshape(-1, 3),
            "cells": cells.astype(np.int32),
        }


class Maps(GroupStage):
    """The stage."""

    name = "maps"

    def __init__(self, context: Context, source: GroupSource) -> None:
        config = source.config
        counts = {VALIDATION: config.validation.groups, TRAIN: config.train.groups}
        super().__init__(context, source, counts)

    def figures(self, made: int) -> dict[str, Any]:
        """How many groups, and pairs to train with."""
        counts = self.store.lengths("pairs")
        pairs = sum(counts[k] for k in self.keys if TRAIN in k)
        return {"groups": len(self.keys), "pairs": pairs}

    def read(self, role: str, number: int) -> Example:
        """A stored group, equal to `GroupSource.example` except for rounding."""
        fields = self.store.read(key(role, number))
        maps = torch.from_numpy(fields["maps"]).float()
        cells = torch.from_numpy(fields["cells"]).long()
        parts = torch.split(cells, fields["pairs"][:, 2].tolist())
        rows = zip(fields["pairs"].tolist(), parts, strict=True)
        maps = maps.contiguous(memory_format=torch.channels_last)
        return Example(maps, [(first, second, part) for (first, second, _), part in rows])
