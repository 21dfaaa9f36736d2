"""The examples that training sets provide: groups of crops with corresponding cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from reconstruct.errors import DataError
from reconstruct.training.data.layout import Cells, Layout
from reconstruct.types import ImageArray

ATTEMPTS = 200
"""Draws without a usable pair after which a training set is rejected."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CropPair:
    """Two crops of a group and their corresponding cells.

    Attributes:
        first: Index of the first crop.
        second: Index of the second crop.
        cells: (M, 2) corresponding cells.
    """

    first: int
    second: int
    cells: Cells


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """Crops that show the same surface.

    Attributes:
        images: (K, S, S, 3) uint8 RGB.
        pairs: One or more.
        complete: Whether cells without corresponding one are known to have none: where photos agree
            pixel by pixel, and not where depth may be missing.
    """

    images: ImageArray
    pairs: tuple[CropPair, ...]
    complete: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What all groups of a run have in common.

    Attributes:
        layout: Layout of the network.
        crop_px: Edge of the crops in pixels.
        min_correspondences: Pairs with fewer corresponding cells are dropped.
    """

    layout: Layout
    crop_px: int
    min_correspondences: int

    def usable(self, pairs: list[CropPair]) -> tuple[CropPair, ...]:
        """The pairs with enough correspondences."""
        return tuple(pair for pair in pairs if len(pair.cells) >= self.min_correspondences)


class TrainingSet(Protocol):
    """A data set to train on. It may be used by several processes: a draw depends on ``rng``
    alone."""

    def draw(self, shape: Shape, rng: np.random.Generator) -> Group | None:
        """One random group; None if the draw has no usable pair (too little overlap ...)."""

    def identity(self) -> list[Any]:
        """The settings, and the photos by content, as JSON types."""


def draw_group(source: TrainingSet, shape: Shape, seed: tuple[int, ...]) -> Group:
    """Draw a group that depends only on the seed, not on the process or on earlier draws.

    Args:
        source: The training set.
        shape: What all groups of the run have in common.
        seed: Seed of the group.

    Raises:
        DataError: There is no usable pair in `ATTEMPTS` draws.
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
