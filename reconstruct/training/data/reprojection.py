"""Correspondences from depth: pixels of one view, back-projected and projected into another.

Cameras are pinholes without distortion; positions are COLMAP pixels, so the intrinsics apply to
them as they are. Depth is z in the camera; 0, NaN and infinity mean none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reconstruct.geometry import Float64, relative_pose
from reconstruct.training.data.layout import Mask
from reconstruct.types import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DepthView:
    """A view with known depth.

    Attributes:
        intrinsics: (3, 3) calibration matrix.
        cam_from_world: (3, 4) pose.
        depth: (H, W) in the unit of the poses.
    """

    intrinsics: Float64
    cam_from_world: Float64
    depth: FloatArray


def reproject(
    positions: NDArray[np.float64],
    first: DepthView,
    second: DepthView,
    tolerance: float,
    *,
    relative: bool = True,
) -> tuple[Float64, Mask]:
    """Positions in the second view of points of the first.

    Args:
        positions: (N, 2) COLMAP pixels of the first view.
        first: The first view.
        second: The second view.
        tolerance: Largest difference between a point's depth in the second view and the depth
            measured there.
        relative: Whether the tolerance is a share of that depth, or in the unit of the poses.

    Returns:
        (N, 2) COLMAP pixels of the second view, and (N,) which points are visible there: depth is
            known in both views and agrees.
    """
    depth = interpolate_depth(first.depth, positions)
    rays = np.column_stack([positions, np.ones(len(positions))]) @ np.linalg.inv(first.intrinsics).T
    second_from_first = relative_pose(first.cam_from_world, second.cam_from_world)
    points = (rays * depth[:, None]) @ second_from_first[:, :3].T + second_from_first[:, 3]
    with np.errstate(invalid="ignore", divide="ignore"):
        pixels = points @ second.intrinsics.T
        target = np.where(points[:, 2:] > 0, pixels[:, :2] / pixels[:, 2:], np.nan)
        measured = interpolate_depth(second.depth, target)
        limit = tolerance * measured if relative else tolerance
        seen = np.abs(points[:, 2] - measured) <= limit
    return target, np.asarray(seen)


def interpolate_depth(depth: FloatArray, positions: NDArray[np.float64]) -> Float64:
    """(N,) bilinear depth at (N, 2) positions; NaN where one of the four surrounding pixels has
    none."""
    height, width = depth.shape
    index = positions - 0.5  # to pixel indices: a pixel's depth is that of its centre
    usable: Mask = np.asarray(np.isfinite(index).all(axis=1))
    index = np.where(usable[:, None], index, -1.0)
    corner = np.floor(index)
    usable &= (corner >= 0).all(axis=1) & (corner[:, 0] < width - 1) & (corner[:, 1] < height - 1)
    x, y = np.where(usable[:, None], corner, 0).astype(np.int64).T
    u, v = (index - corner).T
    corners = np.stack([depth[y, x], depth[y, x + 1], depth[y + 1, x], depth[y + 1, x + 1]])
    known = (np.isfinite(corners) & (corners > 0)).all(axis=0)
    weights = np.stack([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v])
    with np.errstate(invalid="ignore"):
        value = (np.where(known, corners, 0.0) * weights).sum(axis=0)
    return np.where(usable & known, value, np.nan)
