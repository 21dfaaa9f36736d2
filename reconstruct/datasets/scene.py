"""The parts of a synthetic scene: textured parallelograms, lamps, lighting, cameras.

World: metres, right-handed, z up. Camera: x right, y down, z forward, ``x_cam = R x_world + t``.
Pixels: COLMAP's, so the ray of the pixel in column u and row v goes through (u + 0.5, v + 0.5).
Depth is z in the camera frame, not the length of the ray.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from reconstruct.geometry import Float64
from reconstruct.types import ImageArray

NO_SURFACE_M = 0.0
"""Depth of a pixel whose ray meets no surface (sky), as in the 7-Scenes and InLoc scans."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Quad:
    """A textured parallelogram, visible only from the side where u runs right and v runs down.

    Attributes:
        origin: (3,) metres, the outer corner of the first texel.
        edge_u: (3,) metres; texture rows run along it.
        edge_v: (3,) metres; texture columns run along it.
        albedo: (H, W, 3) uint8 RGB under white light of strength 1.
        glow: (H, W, 3) uint8 RGB of emitted light when the lights are on, or None.
    """

    origin: Float64
    edge_u: Float64
    edge_v: Float64
    albedo: ImageArray
    glow: ImageArray | None = None

    @property
    def normal(self) -> Float64:
        """(3,) unit vector towards the side from which the quad is visible."""
        normal = np.cross(self.edge_v, self.edge_u)
        return np.asarray(normal / np.linalg.norm(normal))

    def points(self, s: ArrayLike, t: ArrayLike) -> Float64:
        """(..., 3) world points at the shares s, t in [0, 1] of the two edges."""
        s, t = np.asarray(s)[..., None], np.asarray(t)[..., None]
        return np.asarray(self.origin + s * self.edge_u + t * self.edge_v)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """Surfaces and lamps.

    Solids are closed by quads that face outwards; only the underside of what stands on the ground
    is open.

    Attributes:
        quads: The surfaces.
        lamps: (L, 3) positions in metres.
    """

    quads: tuple[Quad, ...]
    lamps: Float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Lighting:
    """Linear light (1 makes a white surface white), each a colour (red, green, blue).

    sky: from everywhere above; sun: from the direction ``to_sun``; lamp: of each lamp of the scene
    on a surface facing it at 1 m; glow: share of `Quad.glow` that is visible, 0 to 1. zenith,
    horizon: colour of the image where there is no surface, 0 to 1 as displayed. noise: standard
    deviation of the sensor noise of a black pixel, in grey levels.
    """

    sky: tuple[float, float, float]
    sun: tuple[float, float, float]
    to_sun: tuple[float, float, float]
    lamp: tuple[float, float, float]
    glow: float
    zenith: tuple[float, float, float]
    horizon: tuple[float, float, float]
    noise: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PinholeCamera:
    """COLMAP's PINHOLE, all in pixels; (0, 0) is the outer corner of the first pixel."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    @property
    def matrix(self) -> Float64:
        """(3, 3) calibration matrix K."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """A photo to be rendered. ``cam_from_world``: (3, 4) ``[R | t]``, metres."""

    name: str
    camera: PinholeCamera
    cam_from_world: Float64


def look_at(center: ArrayLike, target: ArrayLike) -> Float64:
    """(3, 4) cam_from_world of an upright camera at ``center`` looking at ``target`` (metres)."""
    center = np.asarray(center, np.float64)
    forward = np.asarray(target, np.float64) - center
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return np.column_stack([rotation, -rotation @ center])


def project(view: View, points: ArrayLike) -> tuple[Float64, Float64]:
    """Project points.

    Args:
        view: Camera and pose.
        points: (N, 3) world points.

    Returns:
        (N, 2) COLMAP pixels and (N,) depths in metres (> 0: in front of the camera).
    """
    pose = view.cam_from_world
    in_camera = np.asarray(points, np.float64) @ pose[:, :3].T + pose[:, 3]
    homogeneous = in_camera @ view.camera.matrix.T
    return np.asarray(homogeneous[:, :2] / homogeneous[:, 2:]), np.asarray(in_camera[:, 2])


def back_project(view: View, depth: NDArray[Any]) -> Float64:
    """World points of the pixels of a view.

    Args:
        view: Camera and pose.
        depth: (H, W) metres along z.

    Returns:
        (H, W, 3), NaN where there is no surface.
    """
    u, v = pixel_grid(depth.shape[1], depth.shape[0], 1)
    camera, pose = view.camera, view.cam_from_world
    rays = np.broadcast_arrays((u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, 1.0)
    z = np.where(depth == NO_SURFACE_M, np.nan, depth).astype(np.float64)
    return np.asarray((np.stack(rays, axis=-1) * z[..., None] - pose[:, 3]) @ pose[:, :3])


def pixel_grid(columns: int, rows: int, factor: int = 1) -> tuple[Float64, Float64]:
    """(1, W), (H, 1): COLMAP pixels (hence + 0.5) of samples, ``factor`` of them per pixel."""
    return (np.arange(columns)[None] + 0.5) / factor, (np.arange(rows)[:, None] + 0.5) / factor
