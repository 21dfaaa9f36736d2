"""Pixels, sizes and relative poses: numpy and scipy only.

Positions are COLMAP pixels (see `reconstruct.types`). Transforms are named ``target_from_source``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Float64 = NDArray[np.float64]


def fit_size(
    size: tuple[int, int], max_edge: int | None, max_sum_edges: int | None = None
) -> tuple[int, int]:
    """The size to which an image is shrunk so that it keeps two limits.

    First the longest edge is brought to ``max_edge``, then the sum of the edges to
    ``max_sum_edges``. Images are never enlarged, and never become smaller than one pixel. Each edge
    is rounded down, as in the public release of D2-Net.

    Args:
        size: (width, height) in pixels.
        max_edge: Limit of the longest edge; None: no limit.
        max_sum_edges: Limit of width + height; None: no limit.

    Returns:
        (width, height) of the shrunk image.
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
    """Positions of points after their image is resized.

    With the origin at the outer corner of the first pixel there is no half-pixel term.

    Args:
        points: (N, 2) COLMAP pixels in the original image.
        source_size: (width, height) of the original image.
        target_size: (width, height) of the resized image.

    Returns:
        (N, 2) COLMAP pixels in the resized image.
    """
    ratio = np.asarray(target_size, np.float64) / np.asarray(source_size, np.float64)
    return np.asarray(points, np.float64) * ratio


def rotation_angle_deg(rotation: NDArray[Any]) -> float:
    """Angle of a (3, 3) rotation matrix in degrees, exact near 0 as near 180."""
    return float(np.degrees(Rotation.from_matrix(rotation).magnitude()))


def angle_between_deg(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Angle between two 3-vectors in degrees; NaN if one of them is zero."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if not a.any() or not b.any():
        return float("nan")
    return float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), np.dot(a, b))))


def relative_pose(a_from_world: NDArray[Any], b_from_world: NDArray[Any]) -> Float64:
    """(3, 4) relative pose ``b_from_a`` of two (3, 4) poses ``[R | t]``, x_cam = R x_world + t."""
    ra, ta = np.asarray(a_from_world, np.float64)[:, :3], np.asarray(a_from_world)[:, 3]
    rb, tb = np.asarray(b_from_world, np.float64)[:, :3], np.asarray(b_from_world)[:, 3]
    rotation = rb @ ra.T
    return np.column_stack([rotation, tb - rotation @ ta])


def projection_center(cam_from_world: NDArray[Any]) -> Float64:
    """(3,) position of the camera in the world, -R^T t."""
    pose = np.asarray(cam_from_world, np.float64)
    return np.asarray(-pose[:, :3].T @ pose[:, 3])


def apply_homography(homography: NDArray[Any], points: NDArray[Any]) -> Float64:
    """Map (N, 2) points by a (3, 3) homography ``target_from_source``.

    A point that it sends to infinity or behind the camera becomes NaN.
    """
    points = np.asarray(points, np.float64).reshape(-1, 2)
    mapped = np.column_stack([points, np.ones(len(points))]) @ np.asarray(homography).T
    depth = np.where(mapped[:, 2:] > 0, mapped[:, 2:], np.nan)
    return np.asarray(mapped[:, :2] / depth)


def quaternion(rotation: NDArray[Any]) -> Float64:
    """(4,) unit quaternion (w, x, y, z), w >= 0, of a (3, 3) rotation matrix."""
    found = Rotation.from_matrix(rotation).as_quat(canonical=True, scalar_first=True)
    return np.asarray(found, np.float64)


def rotation_matrix(quaternion: NDArray[Any]) -> Float64:
    """(3, 3) rotation of a quaternion (w, x, y, z) of any length but zero."""
    return np.asarray(Rotation.from_quat(quaternion, scalar_first=True).as_matrix(), np.float64)


def check_pose(pose: NDArray[Any]) -> None:
    """Raise ValueError unless a (3, 4) matrix is a pose: finite, a rotation and a translation."""
    rotation = pose[:, :3]
    with np.errstate(all="ignore"):
        unlike = np.abs(rotation @ rotation.T - np.eye(3)).max()
        if not (np.isfinite(pose).all() and unlike < 1e-4 and np.linalg.det(rotation) > 0):
            raise ValueError("its pose is no rotation and translation")


def epipolar_errors_px(
    b_from_a: NDArray[Any],
    rays_a: NDArray[Any],
    rays_b: NDArray[Any],
    focal_px: tuple[float, float],
) -> Float64:
    """Distances of matches from their epipolar lines, in pixels.

    Args:
        b_from_a: (3, 4) relative pose of the two cameras.
        rays_a: (M, 2) points in camera a on the plane z = 1, without distortion.
        rays_b: (M, 2) the matching points in camera b.
        focal_px: Focal lengths of a and b in pixels.

    Returns:
        (M,) the larger of a match's distances in the two images; infinite where it is not defined.
    """
    rotation, t = b_from_a[:, :3], b_from_a[:, 3]
    cross = np.array([[0.0, -t[2], t[1]], [t[2], 0.0, -t[0]], [-t[1], t[0], 0.0]])
    essential = cross @ rotation
    a, b = (np.column_stack([rays, np.ones(len(rays))]) for rays in (rays_a, rays_b))
    lines_b, lines_a = a @ essential.T, b @ essential
    residual = np.abs(np.sum(b * lines_b, axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        in_a = focal_px[0] * residual / np.linalg.norm(lines_a[:, :2], axis=1)
        in_b = focal_px[1] * residual / np.linalg.norm(lines_b[:, :2], axis=1)
    return np.asarray(np.nan_to_num(np.maximum(in_a, in_b), nan=np.inf))
