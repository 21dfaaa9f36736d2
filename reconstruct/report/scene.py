"""A model for the 3D viewer: points quantised to 16 bits, cameras with their image planes."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from reconstruct.colmap import Camera, ModelArrays
from reconstruct.geometry import Float64
from reconstruct.report.content import CameraView, ModelView

MARGIN = 2.0
"""Points farther from the middle than so many times the spread of nine in ten are not shown: a few
that lie at infinity would take all 16 bits for themselves."""
LEVEL = 0.05
"""Mean square of the upward parts of the cameras' x axes below which they are held level."""
STEEP = 0.15
"""Upward part of the cameras' mean y axis below which all look straight down (drones)."""


def model_view(
    name: str,
    model: ModelArrays,
    photos: Mapping[str, int],
    limit: int,
    queries: tuple[CameraView, ...] = (),
    up: Float64 | None = None,
) -> ModelView:
    """A model, thinned evenly to ``limit`` points.

    photos: name -> index in the table. up: where it is known; else `upward`.
    """
    cameras = [
        camera_view(name, pose, camera, photos.get(name, -1))
        for name, pose, camera in zip(model.names, model.poses, model.cameras, strict=True)
    ]
    kept = np.flatnonzero(_near(model.xyz, model.centers))
    kept = kept[_evenly(len(kept), limit)]
    shown = model.xyz[kept]
    everything = np.vstack([shown, model.centers]) if len(model.centers) else shown
    low = everything.min(0) if len(everything) else np.zeros(3)
    size = max(float((everything.max(0) - low).max()), 1e-9) if len(everything) else 1.0
    quantised = np.clip(np.round((shown - low) / size * 65535), 0, 65535).astype("<u2")
    return ModelView(
        name=name,
        points=_base64(quantised),
        colors=_base64(model.colors[kept]),
        shown=len(kept),
        total=len(model.xyz),
        low=tuple(low.tolist()),
        size=size,
        up=tuple((upward(model.poses) if up is None else up).tolist()),
        cameras=(*cameras, *queries),
    )


def camera_view(
    name: str, cam_from_world: NDArray[np.float64], camera: Camera, photo: int
) -> CameraView:
    """A registered photo, its image plane as wide as its intrinsics say."""
    fx, fy = camera.focal_length_x, camera.focal_length_y
    return CameraView(
        name=name,
        matrix=tuple(float(f"{v:.9g}") for v in np.asarray(cam_from_world).ravel()),
        slopes=(round(camera.width / 2 / fx, 5), round(camera.height / 2 / fy, 5)),
        photo=photo,
    )


def upward(poses: NDArray[np.float64]) -> Float64:
    """(3,) of unit length: where up is, by how photos are taken.

    Cameras are held level, and so up is square to their x axes even where they look straight down.
    Where these axes are all alike (one heading), or the cameras are not level, up is away from what
    the cameras call down, on average.
    """
    if not len(poses):
        return np.array([0.0, -1.0, 0.0])
    right, down, ahead = (poses[:, axis, :3] for axis in range(3))
    mean = -down.mean(0)
    spread, axes = np.linalg.eigh(right.T @ right / len(poses))
    if spread[0] < LEVEL < 2 * LEVEL < spread[1]:
        up = axes[:, 0]
        along = float(up @ mean)
        upright = along if abs(along) > STEEP else float(-up @ ahead.mean(0))
        return np.asarray(up if upright > 0 else -up, np.float64)
    norm = float(np.linalg.norm(mean))
    return np.asarray(mean / norm if norm > 1e-6 else -poses[0, 1, :3], np.float64)


def ground_axes(poses: NDArray[np.float64], up: Float64 | None = None) -> Float64:
    """(2, 3) axes of the plan as seen from above, to the right and upwards on the page.

    They are the cameras' right and ahead, square to `upward`; where ``up`` is known, as of models
    that were aligned with GPS, east and north.
    """
    if up is not None:
        return np.eye(3)[:2]
    down = -upward(poses)
    right = poses[:, 0, :3].mean(0)
    right = right - down * (right @ down)
    if np.linalg.norm(right) < 1e-3:  # cameras all around: any axis will do
        right = np.cross(down, np.eye(3)[int(np.argmin(np.abs(down)))])
    right = right / np.linalg.norm(right)
    return np.array([right, np.cross(right, down)])


def _near(xyz: Float64, centers: Float64) -> NDArray[np.bool_]:
    if not len(xyz):
        return np.zeros(0, np.bool_)
    everything = np.vstack([xyz, centers]) if len(centers) else xyz
    low, high = np.percentile(everything, 5, axis=0), np.percentile(everything, 95, axis=0)
    if len(centers):
        low, high = np.minimum(low, centers.min(0)), np.maximum(high, centers.max(0))
    reach = MARGIN * max(float((high - low).max()), 1e-9)
    middle = (low + high) / 2
    return np.asarray((np.abs(xyz - middle) <= reach).all(axis=1))


def _evenly(count: int, limit: int) -> NDArray[np.int64]:
    """Sorted indices of at most ``limit`` of ``count``, spread over all."""
    if count <= limit:
        return np.arange(count)
    return np.linspace(0, count - 1, limit).round().astype(np.int64)


def _base64(values: NDArray[np.generic]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
