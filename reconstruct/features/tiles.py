"""Large photos in overlapping tiles, each as large as the network's usual input."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from reconstruct.types import LocalFeatures

OVERLAP = 192
"""Pixels that neighbouring tiles share. Keypoints in the outer half of it are taken from the
neighbour, in which a receptive field of that size is complete."""
STEP = 8
"""Tiles begin at multiples of this, so that a network of such a stride sees the same cells."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of a photo along one axis or both.

    start, stop: pixels of the tile, x first. low, high: keypoints in [low, high) are this tile's,
    those outside belong to its neighbours.
    """

    start: tuple[int, int]
    stop: tuple[int, int]
    low: tuple[float, float]
    high: tuple[float, float]


def tile_grid(size: tuple[int, int], edge: int) -> list[Tile]:
    """Tiles that cover a photo, row by row; every pixel is in the core of exactly one.

    Args:
        size: (width, height) of the photo.
        edge: Largest width and height of a tile, more than `OVERLAP`.
    """
    columns, rows = (_spans(length, edge) for length in size)
    return [
        Tile((x.start, y.start), (x.stop, y.stop), (x.low, y.low), (x.high, y.high))
        for y in rows
        for x in columns
    ]


@dataclass(frozen=True, slots=True)
class _Span:
    start: int
    stop: int
    low: float
    high: float


def _spans(length: int, edge: int) -> list[_Span]:
    """Stretches of at most ``edge`` pixels that cover ``length`` of them evenly."""
    if length <= edge:
        return [_Span(0, length, -math.inf, math.inf)]
    # Rounding to steps moves two neighbours apart by less than two of them.
    count = math.ceil((length - OVERLAP) / (edge - OVERLAP - 2 * STEP))
    starts = [int(i * (length - edge) / (count - 1)) // STEP * STEP for i in range(count - 1)]
    starts.append(-(-(length - edge) // STEP) * STEP)
    stops = [min(start + edge, length) for start in starts]
    borders = [(a + b) / 2 for a, b in zip(starts[1:], stops[:-1], strict=True)]
    lows, highs = [-math.inf, *borders], [*borders, math.inf]
    return [_Span(*span) for span in zip(starts, stops, lows, highs, strict=True)]


def in_photo(features: LocalFeatures, tile: Tile, size: tuple[int, int]) -> LocalFeatures:
    """The features of a tile that are its own, in pixels of the photo.

    Args:
        features: Features of the tile as if it were a photo.
        tile: Where it is.
        size: (width, height) of the photo.
    """
    xy = features.keypoints + np.asarray(tile.start, np.float32)
    own = ((xy >= tile.low) & (xy < tile.high)).all(axis=1)
    return LocalFeatures(
        keypoints=np.ascontiguousarray(xy[own], np.float32),
        scales=features.scales[own],
        scores=features.scores[own],
        descriptors=features.descriptors[own],
        image_size=size,
    )


def joined(parts: list[LocalFeatures]) -> LocalFeatures:
    """The features of the tiles of one photo."""
    return LocalFeatures(
        keypoints=np.concatenate([part.keypoints for part in parts]),
        scales=np.concatenate([part.scales for part in parts]),
        scores=np.concatenate([part.scores for part in parts]),
        descriptors=np.concatenate([part.descriptors for part in parts]),
        image_size=parts[0].image_size,
    )
