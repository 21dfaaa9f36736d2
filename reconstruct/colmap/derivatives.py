"""How projections move with points and intrinsics, for every camera model of COLMAP.

Central differences: pycolmap gives no derivatives, and these are exact to some 1e-9 of their size.
"""

from __future__ import annotations

import numpy as np
import pycolmap
from numpy.typing import NDArray

from reconstruct.colmap.cameras import Camera

STEP = 1e-5
"""Of a difference, relative to the distance of a point or to the size of a parameter."""


def point_derivatives(camera: Camera, in_camera: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2, 3) pixels by coordinates of (N, 3) points in the camera's frame; NaN behind it."""
    result = np.empty((len(in_camera), 2, 3))
    steps = STEP * np.linalg.norm(in_camera, axis=1)
    for axis in range(3):
        moved = np.zeros_like(in_camera)
        moved[:, axis] = steps
        after, before = (_pixels(camera, in_camera + sign * moved) for sign in (1, -1))
        result[:, :, axis] = (after - before) / (2 * steps[:, None])
    return result


def intrinsics_derivatives(camera: Camera, in_camera: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 2, K) pixels by the intrinsics that COLMAP adjusts: focal lengths and distortion.

    The principal point stays where it is, as in COLMAP's bundle adjustment by default.
    """
    adjusted = [*camera.focal_length_idxs(), *camera.extra_params_idxs()]
    result = np.empty((len(in_camera), 2, len(adjusted)))
    for column, index in enumerate(adjusted):
        step = STEP * max(abs(camera.params[index]), 1.0)
        after, before = (_with_parameter(camera, index, sign * step) for sign in (1, -1))
        result[:, :, column] = (_pixels(after, in_camera) - _pixels(before, in_camera)) / (2 * step)
    return result


def _with_parameter(camera: Camera, index: int, step: float) -> Camera:
    params = camera.params.copy()
    params[index] += step
    changed = pycolmap.Camera(camera.todict())
    changed.params = params.tolist()
    return changed


def _pixels(camera: Camera, in_camera: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(camera.img_from_cam(in_camera), np.float64).reshape(-1, 2)
