"""Rendering the points of an RGB-D map from any pose: numpy and OpenCV only."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from reconstruct.geometry import Float64
from reconstruct.types import FloatArray

NEAR_M = 0.05
"""Points closer to the camera are not drawn."""

SAME_SURFACE = 0.04
"""A point is hidden if a neighbour in the image is closer to the camera by more than this share of
the distance: otherwise a far wall would show between the points of a near one."""

GAP_LEVELS = 2
"""Gaps of up to 4 pixels between points are closed, as in a view from a quarter of the distance."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cloud:
    """Points with brightness.

    Attributes:
        xyz: (N, 3) float32 world points.
        grey: (N,) float32 brightness, 0 to 255.
    """

    xyz: FloatArray
    grey: FloatArray

    @property
    def nbytes(self) -> int:
        """Memory of the arrays in bytes."""
        return self.xyz.nbytes + self.grey.nbytes


def project_cloud(
    xyz: FloatArray, cam_from_world: Float64, matrix: Float64, size: tuple[int, int]
) -> tuple[NDArray[np.int64], FloatArray, NDArray[np.int64]]:
    """Project points into an image.

    Args:
        xyz: (N, 3) world points.
        cam_from_world: (3, 4) pose.
        matrix: (3, 3) calibration matrix, in COLMAP pixels.
        size: (width, height) of the image.

    Returns:
        Of the points inside of the image their row-major pixel, their depth and their index.
    """
    width, height = size
    pose = np.asarray(cam_from_world, np.float32)
    # Column by column: a product of matrices would wait for threads, for three multiplications.
    z = xyz[:, 0] * pose[2, 0] + xyz[:, 1] * pose[2, 1] + xyz[:, 2] * pose[2, 2] + pose[2, 3]
    index = np.flatnonzero(z > NEAR_M)
    near, z = xyz[index], z[index]
    pixels = []
    for axis, extent in ((0, width), (1, height)):
        row = pose[axis] * np.float32(matrix[axis, axis])
        along = near[:, 0] * row[0] + near[:, 1] * row[1] + near[:, 2] * row[2] + row[3]
        # Pixel 0 spans 0 to 1 in COLMAP's coordinates: rounding down finds it.
        at = np.floor(along / z + np.float32(matrix[axis, 2]))
        pixels.append(at.clip(-1, extent).astype(np.int64))
    inside = np.flatnonzero(
        (pixels[0] >= 0) & (pixels[0] < width) & (pixels[1] >= 0) & (pixels[1] < height)
    )
    return pixels[1][inside] * width + pixels[0][inside], z[inside], index[inside]


def render_cloud(
    cloud: Cloud, cam_from_world: Float64, matrix: Float64, size: tuple[int, int]
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Render points.

    Each pixel shows the nearest point in it. Points that a nearer surface around them would hide
    are removed, then gaps between the points of a surface are closed (see `close_gaps`).

    Args:
        cloud: The points.
        cam_from_world: (3, 4) pose.
        matrix: (3, 3) calibration matrix, in COLMAP pixels.
        size: (width, height) of the image.

    Returns:
        (H, W) float32 brightness and (H, W) bool, false in holes.
    """
    width, height = size
    pixel, depth, index = project_cloud(cloud.xyz, cam_from_world, matrix, size)
    grey = np.zeros(width * height, np.float32)
    nearest = np.full(width * height, np.inf, np.float32)
    np.minimum.at(nearest, pixel, depth)
    front_most = depth == nearest[pixel]
    grey[pixel[front_most]] = cloud.grey[index[front_most]]
    front = nearest.reshape(height, width)
    around = cv2.erode(front, np.ones((3, 3), np.uint8), borderValue=float("inf"))
    shown = np.isfinite(front) & (front <= around * (1 + SAME_SURFACE))
    seen = np.where(shown, grey.reshape(height, width), 0.0).astype(np.float32)
    closed, far = close_gaps(seen, np.where(shown, front, np.inf).astype(np.float32), GAP_LEVELS)
    return closed, np.isfinite(far)


def close_gaps(grey: FloatArray, depth: FloatArray, levels: int) -> tuple[FloatArray, FloatArray]:
    """Fill pixels without a point from the image at half the size, recursively.

    A surface seen from closer than it was scanned is closed; what was not scanned stays open,
    except for 2 ** levels pixels at its border.

    Args:
        grey: (H, W) brightness.
        depth: (H, W), infinite without a point.
        levels: Number of halvings.

    Returns:
        Brightness and depth.
    """
    if levels == 0 or min(grey.shape) < 2:
        return grey, depth
    coarse, far = close_gaps(*_halved(grey, depth), levels - 1)
    height, width = grey.shape
    known = np.isfinite(far).astype(np.float32)
    size = 2 * far.shape[1], 2 * far.shape[0]
    weight, total = (
        np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_LINEAR))[:height, :width]
        for values in (known, coarse * known)
    )
    behind = np.repeat(np.repeat(far, 2, axis=0), 2, axis=1)[:height, :width]
    gap = np.isinf(depth) & np.isfinite(behind)
    mean = total / np.maximum(weight, 1e-6)
    return (
        np.where(gap, mean, grey).astype(np.float32),
        np.where(gap, behind, depth).astype(np.float32),
    )


def _halved(grey: FloatArray, depth: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Blocks of 2 x 2: the nearest depth, and the mean brightness of the pixels at that depth."""
    odd = ((0, grey.shape[0] % 2), (0, grey.shape[1] % 2))
    shape = ((grey.shape[0] + 1) // 2, 2, (grey.shape[1] + 1) // 2, 2)
    z = np.pad(depth, odd, constant_values=np.inf).reshape(shape)
    nearest = z.min(axis=(1, 3))
    same_surface = np.isfinite(z) & (z <= nearest[:, None, :, None] * (1 + SAME_SURFACE))
    total = (np.pad(grey, odd).reshape(shape) * same_surface).sum(axis=(1, 3))
    return (total / np.maximum(same_surface.sum(axis=(1, 3)), 1)).astype(np.float32), nearest
