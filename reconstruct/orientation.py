"""EXIF orientation: pixels turned upright, and keypoints back to where they are stored.

A camera held sideways stores the picture as its sensor saw it and notes how to turn it. D2-Net is
not invariant to rotation, so it needs the upright picture; everything else (features, cameras,
COLMAP) refers to the stored one. All eight orientations are flips of the stored picture, then
perhaps an exchange of x and y. (Exif 2.3, tag 0x0112: "which way row 0 and column 0 lie".)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from reconstruct.geometry import Float64
from reconstruct.types import LocalFeatures

AS_STORED = 1
_STEPS = {
    # orientation: (flip x, flip y, then exchange x and y)
    1: (False, False, False),
    2: (True, False, False),
    3: (True, True, False),
    4: (False, True, False),
    5: (False, False, True),
    6: (False, True, True),  # a quarter turn clockwise
    7: (True, True, True),
    8: (True, False, True),  # a quarter turn counterclockwise
}

_CLOCKWISE = {1: 6, 6: 3, 3: 8, 8: 1, 2: 7, 7: 4, 4: 5, 5: 2}
"""Orientation -> that of the same picture seen a quarter turn further clockwise."""

Pixel = TypeVar("Pixel", bound=np.generic)


def upright(image: NDArray[Pixel], orientation: int) -> NDArray[Pixel]:
    """The stored (H, W, ...) picture as it is meant to be seen; contiguous, exact."""
    flip_x, flip_y, exchange = _STEPS[orientation]
    flipped = image[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
    return np.ascontiguousarray(flipped.swapaxes(0, 1) if exchange else flipped)


def upright_size(stored_size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(width, height) of the upright picture."""
    width, height = stored_size
    return (height, width) if _STEPS[orientation][2] else (width, height)


def turned_further(orientation: int, quarter_turns: int) -> int:
    """The orientation of which the upright picture is turned clockwise by ``quarter_turns``."""
    for _ in range(quarter_turns % 4):
        orientation = _CLOCKWISE[orientation]
    return orientation


def stored_points(points: NDArray[Any], stored_size: tuple[int, int], orientation: int) -> Float64:
    """(N, 2) COLMAP pixels of the upright picture -> those of the stored one.

    stored_size: (width, height) of the stored picture. With the origin at the outer corner of the
    first pixel, a flip takes x to width - x.
    """
    flip_x, flip_y, exchange = _STEPS[orientation]
    xy = np.array(points, np.float64).reshape(-1, 2)
    return _flipped(xy[:, ::-1] if exchange else xy, stored_size, flip_x, flip_y)


def upright_points(points: NDArray[Any], stored_size: tuple[int, int], orientation: int) -> Float64:
    """(N, 2) COLMAP pixels of the stored picture -> those of the upright one."""
    flip_x, flip_y, exchange = _STEPS[orientation]
    xy = _flipped(np.array(points, np.float64).reshape(-1, 2), stored_size, flip_x, flip_y)
    return np.ascontiguousarray(xy[:, ::-1]) if exchange else xy


def stored_features(
    features: LocalFeatures, stored_size: tuple[int, int], orientation: int
) -> LocalFeatures:
    """Features of the upright picture as features of the stored one, of its size."""
    if orientation == AS_STORED:
        return features
    xy = stored_points(features.keypoints, stored_size, orientation)
    return replace(features, keypoints=xy.astype(np.float32), image_size=stored_size)


def _flipped(xy: Float64, size: tuple[int, int], flip_x: bool, flip_y: bool) -> Float64:
    x = size[0] - xy[:, 0] if flip_x else xy[:, 0]
    y = size[1] - xy[:, 1] if flip_y else xy[:, 1]
    return np.column_stack([x, y])
