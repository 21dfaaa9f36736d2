"""Pixels, sizes and relative poses: numpy only.

Positions are COLMAP pixels (see `reconstruct.types`). Transforms are named ``target_from_source``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def fit_size(
    size: tuple[int, int], max_edge: int | None, max_sum_edges: int | None
) -> tuple[int, int]:
    """The (width, height) to which an image is shrunk: first its longest edge to ``max_edge``,
    then the sum of its edges to ``max_sum_edges``. Never enlarged, never below one pixel.

    Each edge is rounded down, as the public release of D2-Net does.
    """
    width, height = size
    scale = 1.0
    if max_edge is not None:
        scale = min(scale, max_edge / max(width, height))
    if max_sum_edges is not None:
        scale = min(scale, max_sum_edges / (width + height))
    # 1e-9: 1600 / 1601 * 1601 must not become 1599.
    return max(1, int(width * scale + 1e-9)), max(1, int(height * scale + 1e-9))


def rescale_points(
    points: NDArray[Any], source_size: tuple[int, int], target_size: tuple[int, int]
) -> Float64:
    """(N, 2) positions in an image of ``source_size`` -> the same points after resizing it.

    With the origin at the outer corner of the first pixel there is no half-pixel term.
    """
    ratio = np.asarray(target_size, np.float64) / np.asarray(source_size, np.float64)
    return np.asarray(points, np.float64) * ratio


def rotation_angle_deg(rotation: NDArray[Any]) -> float:
    """Angle of a (3, 3) rotation matrix in degrees, exact near 0 as near 180.

    From both the sine (skew part) and the cosine (trace): arccos alone loses half of the digits.
    """
    r = np.asarray(rotation, np.float64)
    skew = np.array([r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]])
    return float(np.degrees(np.arctan2(np.linalg.norm(skew), np.trace(r) - 1.0)))


def angle_between_deg(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Angle between two 3-vectors in degrees; NaN if one of them is zero."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if not a.any() or not b.any():
        return float("nan")
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), np.dot(a, b))))


def relative_pose(a_from_world: NDArray[Any], b_from_world: NDArray[Any]) -> Float64:
    """(3, 4) ``b_from_a`` of two (3, 4) poses ``[R | t]``, x_cam = R x_world + t."""
    ra, ta = np.asarray(a_from_world, np.float64)[:, :3], np.asarray(a_from_world)[:, 3]
    rb, tb = np.asarray(b_from_world, np.float64)[:, :3], np.asarray(b_from_world)[:, 3]
    rotation = rb @ ra.T
    return np.column_stack([rotation, tb - rotation @ ta])


def projection_center(cam_from_world: NDArray[Any]) -> Float64:
    """(3,) position of the camera in the world, -R^T t."""
    pose = np.asarray(cam_from_world, np.float64)
    return np.asarray(-pose[:, :3].T @ pose[:, 3])


def apply_homography(homography: NDArray[Any], points: NDArray[Any]) -> Float64:
    """(N, 2) points mapped by a (3, 3) homography ``target_from_source``."""
    points = np.asarray(points, np.float64).reshape(-1, 2)
    mapped = np.column_stack([points, np.ones(len(points))]) @ np.asarray(homography).T
    return np.asarray(mapped[:, :2] / mapped[:, 2:])
