"""Which keypoints of two crops show the same point, by what is known of their cells."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from reconstruct.geometry import Float64
from reconstruct.training.data.layout import Cells, Layout, Mask

ALONE, UNKNOWN = -1, -2
"""In place of the number of a keypoint: it has no match; or nobody knows."""

Mates = NDArray[np.int32]


def mates(
    layout: Layout,
    crop_px: int,
    cells: Cells,
    first: Float64,
    second: Float64,
    *,
    near_px: float,
    far_px: float,
    complete: bool,
) -> tuple[Mates, Mates]:
    """The match of each keypoint of two crops.

    A keypoint's place in the other crop is its cell's, moved by as much as it is beside the cell's
    centre.

    Args:
        layout: Layout of the cells.
        crop_px: Edge of the crops.
        cells: (M, 2) corresponding cells.
        first: (N, 2) keypoints of the first crop, in its pixels.
        second: (K, 2) keypoints of the second crop.
        near_px: Keypoints match if each is the nearest to the other's place, within this distance.
        far_px: A keypoint without match is `ALONE` if none is within this distance of its place.
        complete: Whether a cell without corresponding one has none, and is not just unknown.

    Returns:
        (N,) and (K,): number of the match in the other crop, `ALONE` or `UNKNOWN`.
    """
    count = layout.cells(crop_px)
    goes_to = np.full(count * count, -1)
    goes_to[cells[:, 0]] = cells[:, 1]
    cell, inside = layout.nearest(first, crop_px)
    seen: Mask = inside & (goes_to[np.where(inside, cell, 0)] >= 0)
    unseen = ALONE if complete else UNKNOWN
    of_first = np.where(seen, ALONE, unseen).astype(np.int32)
    of_second = np.where(_covered(layout, crop_px, cells, second), ALONE, unseen).astype(np.int32)
    numbers = np.flatnonzero(seen)
    if not len(numbers) or not len(second):
        return of_first, of_second
    centres = layout.centres(crop_px)
    own = cell[numbers]
    places = centres[goes_to[own]] + first[numbers] - centres[own]
    distance, nearest = cKDTree(second).query(places)
    back_distance, back = cKDTree(places).query(second)
    of_first[numbers[distance < far_px]] = UNKNOWN
    of_second[back_distance < far_px] = UNKNOWN
    found = (distance < near_px) & (back[nearest] == np.arange(len(numbers)))
    of_first[numbers[found]] = nearest[found]
    of_second[nearest[found]] = numbers[found]
    return of_first, of_second


def _covered(layout: Layout, crop_px: int, cells: Cells, keypoints: Float64) -> Mask:
    """(N,) whether keypoints of the second crop are at, or beside, a cell that corresponds."""
    count = layout.cells(crop_px)
    cover = np.zeros((count, count), np.uint8)
    cover.ravel()[cells[:, 1]] = 1
    wide = np.asarray(cv2.dilate(cover, np.ones((3, 3), np.uint8))).ravel()
    cell, inside = layout.nearest(keypoints, crop_px)
    covered: Mask = inside & (wide[np.where(inside, cell, 0)] > 0)
    return covered
