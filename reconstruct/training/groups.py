"""What a data set gives to training: groups of crops with corresponding cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from reconstruct.errors import DataError
from reconstruct.training.layout import Cells, Layout
from reconstruct.types import ImageArray

ATTEMPTS = 200
"""Draws without a usable pair before a data set is given up."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CropPair:
    """Crops ``first`` and ``second`` of a group, and (M, 2) their corresponding cells."""

    first: int
    second: int
    cells: Cells


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """images: (K, S, S, 3) uint8 RGB. pairs: at least one."""

    images: ImageArray
    pairs: tuple[CropPair, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What every group of a run has in common: layout of the network, edge of the crops in
    pixels, least number of correspondences of a pair that counts."""

    layout: Layout
    crop_px: int
    min_correspondences: int

    def usable(self, pairs: list[CropPair]) -> tuple[CropPair, ...]:
        """The pairs with enough correspondences."""
        return tuple(pair for pair in pairs if len(pair.cells) >= self.min_correspondences)


class TrainingSet(Protocol):
    """A data set. It may be used by several processes: a draw depends on ``rng`` alone."""

    def draw(self, shape: Shape, rng: np.random.Generator) -> Group | None:
        """One random group, or None if the dice fell badly (too little overlap ...)."""

    def identity(self) -> list[Any]:
        """JSON-able: settings, and the photos by content."""


def draw_group(source: TrainingSet, shape: Shape, seed: tuple[int, ...]) -> Group:
    """Group ``seed`` of a data set: the same at any time, in any process.

    Raises DataError if it has no usable pair in `ATTEMPTS` draws.
    """
    rng = np.random.default_rng(seed)
    for _ in range(ATTEMPTS):
        group = source.draw(shape, rng)
        if group is not None and group.pairs:
            return group
    raise DataError(
        f"no pair with {shape.min_correspondences} or more correspondences in {ATTEMPTS} draws; "
        "use larger crops (crop_px), photos with more overlap, or a smaller min_correspondences"
    )
