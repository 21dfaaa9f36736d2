"""Exact images of a `Scene`: radiance computed once per lighting, then one homography per quad and
view, with a z-buffer.

    rendered = render(illuminate(scene, lighting), view)

Depth is exact at the centre of each pixel; colour is the mean over the pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from reconstruct.datasets.sampling import bilinear
from reconstruct.datasets.scene import (
    NO_SURFACE_M,
    Lighting,
    Quad,
    Scene,
    View,
    pixel_grid,
    project,
)
from reconstruct.geometry import Float64, projection_center
from reconstruct.types import FloatArray, ImageArray

SUPERSAMPLING = 2
"""Colour samples per pixel and axis; depth has one, in the centre."""

GAMMA = 2.2
CELLS_PER_M = 6.0  # light maps: much coarser than textures, so shadows get a soft edge


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LitScene:
    """A scene under one lighting: per quad the radiance as displayed, as a mip-map pyramid."""

    scene: Scene
    lighting: Lighting
    pyramids: tuple[tuple[ImageArray, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rendered:
    """The image of a view.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        depth: (H, W) float32 metres, `NO_SURFACE_M` where there is no surface.
    """

    image: ImageArray
    depth: FloatArray


def illuminate(scene: Scene, lighting: Lighting) -> LitScene:
    """Compute the radiance of a scene, shadows included: a second or two, once for all views."""
    frames = _plane_frames(scene)
    radiance = (_radiance(quad, scene.lamps, frames, lighting) for quad in scene.quads)
    return LitScene(scene=scene, lighting=lighting, pyramids=tuple(map(_pyramid, radiance)))


def render(lit: LitScene, view: View, rng: np.random.Generator | None = None) -> Rendered:
    """The image and the exact depth of a view.

    Args:
        lit: The scene under one lighting.
        view: Camera and pose.
        rng: Source of the sensor noise; None: no noise.
    """
    nearest, inverse_depth = _rasterise(lit.scene, view, 1)
    depth = np.full(nearest.shape, NO_SURFACE_M, np.float32)
    np.divide(1.0, inverse_depth, out=depth, where=nearest >= 0, casting="same_kind")
    color = _shade(lit, view, _rasterise(lit.scene, view, SUPERSAMPLING)[0])
    color = cv2.resize(color, depth.shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
    if rng is not None:
        # Shot noise grows with the signal: about one more grey level of sigma at white.
        sigma = lit.lighting.noise * np.sqrt(1.0 + color / 128.0)
        color += sigma * rng.standard_normal(color.shape, np.float32)
    return Rendered(image=(color + 0.5).clip(0, 255).astype(np.uint8), depth=depth)


# --- light -------------------------------------------------------------------------------------


def _plane_frames(scene: Scene) -> Float64:
    """(3, 4, Q): rows that take a world point (x, y, z, 1) to s, t and the height over a quad."""
    frames = np.zeros((3, 4, len(scene.quads)))
    for index, quad in enumerate(scene.quads):
        axes = np.column_stack([quad.edge_u, quad.edge_v, quad.normal])
        frames[:, :3, index] = np.linalg.inv(axes)
        frames[:, 3, index] = -frames[:, :3, index] @ quad.origin
    return frames


def _radiance(quad: Quad, lamps: Float64, frames: Float64, lighting: Lighting) -> ImageArray:
    """(H, W, 3) uint8 as displayed: albedo times light, and the glow.

    The product is taken after the gamma curve, where it stays a product.
    """
    height, width = quad.albedo.shape[:2]
    light = (_light_map(quad, lamps, frames, lighting) ** (1.0 / GAMMA)).astype(np.float32)
    shown = cv2.resize(light, (width, height), interpolation=cv2.INTER_LINEAR) * quad.albedo
    if quad.glow is not None and lighting.glow > 0:
        shown += np.float32(lighting.glow) * quad.glow
    return np.asarray((shown + 0.5).clip(0, 255), dtype=np.uint8)


def _light_map(quad: Quad, lamps: Float64, frames: Float64, lighting: Lighting) -> Float64:
    """(h, w, 3) linear light in the cells of a quad."""
    edges = [np.linalg.norm(quad.edge_u), np.linalg.norm(quad.edge_v)]
    columns, rows = (max(2, round(float(edge) * CELLS_PER_M)) for edge in edges)
    s, t = np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows)
    points = quad.points(s, t).reshape(-1, 3)
    light = np.tile(np.asarray(lighting.sky) * (0.7 + 0.3 * quad.normal[2]), (len(points), 1))
    if any(lighting.sun):
        received = _received(quad, points, np.append(lighting.to_sun, 0.0), frames)
        light += received[:, None] * lighting.sun
    if any(lighting.lamp):
        for lamp in lamps:
            received = _received(quad, points, np.append(lamp, 1.0), frames)
            received /= 0.1 + np.square(points - lamp).sum(axis=1)
            light += received[:, None] * lighting.lamp
    return light.reshape(rows, columns, 3)


def _received(quad: Quad, points: Float64, source: Float64, frames: Float64) -> Float64:
    """(N,) share of the light that (N, 3) points of a quad get: Lambert's cosine, 0 in shadow.

    source: (4,) homogeneous, so (place, 1) is a lamp and (direction, 0) the sun.
    """
    to_source = source[:3] - source[3] * points
    cosine = np.asarray(to_source @ quad.normal / np.linalg.norm(to_source, axis=1)).clip(0.0)
    # A ray to a light leaves a closed solid through a side that faces the light. Only these
    # count: half of the work, and a lamp may sit inside its own lantern.
    facing = frames[:, :, source @ frames[2] > 0]
    for start in range(0, len(points), 4096):  # bounds the memory of points times quads
        part = start + np.flatnonzero(cosine[start : start + 4096])
        cosine[part[_shadowed(points[part], source, facing)]] = 0.0
    return cosine


def _shadowed(points: Float64, source: Float64, frames: Float64) -> NDArray[np.bool_]:
    """(N,) whether a quad lies between (N, 3) points and a source that all the quads face."""
    steps = source[:3] - source[3] * points
    s, t, height = np.tensordot(points, frames[:, :3], (1, 1)).swapaxes(0, 1) + frames[:, None, 3]
    ds, dt, rise = np.tensordot(steps, frames[:, :3], (1, 1)).swapaxes(0, 1)
    # The source is above each plane, so the ray crosses those that the point is below of.
    below = height < -1e-6
    k = np.divide(-height, rise, out=np.zeros_like(height), where=below)
    s, t = s + k * ds, t + k * dt
    return np.asarray((below & (s > 0) & (s < 1) & (t > 0) & (t < 1)).any(axis=1))


def _pyramid(texture: ImageArray) -> tuple[ImageArray, ...]:
    levels = [texture]
    while max(levels[-1].shape[:2]) > 2:
        height, width = levels[-1].shape[:2]
        half = ((width + 1) // 2, (height + 1) // 2)
        smaller = cv2.resize(levels[-1], half, interpolation=cv2.INTER_AREA)
        levels.append(np.asarray(smaller, dtype=np.uint8))
    return tuple(levels)


# --- pixels ------------------------------------------------------------------------------------


def _quad_from_pixel(quad: Quad, view: View) -> Float64 | None:
    """(3, 3) homography (u, v, 1) -> (s, t, 1) / depth, or None if the visible side is averted."""
    pose = view.cam_from_world
    axes = np.column_stack([quad.edge_u, quad.edge_v, quad.origin])
    in_camera = pose[:, :3] @ axes
    in_camera[:, 2] += pose[:, 3]
    if np.dot(quad.normal, projection_center(pose) - quad.origin) <= 1e-9:
        return None
    # K in_camera (s, t, 1) = depth (u, v, 1), so the third row of the inverse is 1 / depth.
    return np.asarray(np.linalg.inv(view.camera.matrix @ in_camera))


def _window(quad: Quad, view: View, factor: int) -> tuple[slice, slice]:
    """Rows and columns of samples outside of which a quad cannot be seen."""
    corners, depth = project(view, quad.points([0, 1, 1, 0], [0, 0, 1, 1]))
    size = np.array([view.camera.width, view.camera.height])
    if (depth <= 1e-6).any():  # it reaches behind the camera: no bound from its corners
        corners = np.array([[0, 0], size])
    low = (np.floor(corners.min(axis=0)).clip(0, size) * factor).astype(int)
    high = (np.ceil(corners.max(axis=0)).clip(0, size) * factor).astype(int)
    return slice(low[1], high[1]), slice(low[0], high[0])


def _rasterise(scene: Scene, view: View, factor: int) -> tuple[NDArray[np.int32], Float64]:
    """(H, W) index of the nearest quad (-1: none) and (H, W) 1 / depth (0: none) of each sample."""
    shape = view.camera.height * factor, view.camera.width * factor
    nearest, inverse_depth = np.full(shape, -1, np.int32), np.zeros(shape)
    u, v = pixel_grid(shape[1], shape[0], factor)
    for index, quad in enumerate(scene.quads):
        homography = _quad_from_pixel(quad, view)
        if homography is None:
            continue
        rows, columns = window = _window(quad, view, factor)
        s, t, w = (a * u[:, columns] + (b * v[rows] + c) for a, b, c in homography)
        hit = (w > inverse_depth[window]) & (s >= 0) & (t >= 0) & (s <= w) & (t <= w)
        nearest[window][hit] = index
        inverse_depth[window][hit] = w[hit]
    return nearest, inverse_depth


def _shade(lit: LitScene, view: View, nearest: NDArray[np.int32]) -> FloatArray:
    """(H, W, 3) float32 colours 0 to 255 of samples that see the quads ``nearest``."""
    color = _sky(lit.lighting, view, nearest.shape)
    u, v = pixel_grid(nearest.shape[1], nearest.shape[0], SUPERSAMPLING)
    for index in np.unique(nearest[nearest >= 0]):
        homography = _quad_from_pixel(lit.scene.quads[index], view)
        assert homography is not None  # it was rasterised
        left, top, width, height = cv2.boundingRect((nearest == index).astype(np.uint8))
        window = slice(top, top + height), slice(left, left + width)
        mask = nearest[window] == index
        x, y, w = (a * u[:, window[1]] + (b * v[window[0]] + c) for a, b, c in homography)
        w = np.where(mask, w, np.inf)  # elsewhere the plane may be behind the camera
        texels = np.prod(lit.pyramids[index][0].shape[:2])
        area = texels * abs(np.linalg.det(homography)) / (w**3 * SUPERSAMPLING**2)
        level = 0.5 * np.log2(np.maximum(area, 1.0))
        sampled = _sample(lit.pyramids[index], x / w, y / w, level)
        color[window][mask] = sampled[mask]
    return color


def _sky(lighting: Lighting, view: View, shape: tuple[int, ...]) -> FloatArray:
    u, v = pixel_grid(shape[1], shape[0], SUPERSAMPLING)
    camera, up = view.camera, view.cam_from_world[:, 2]  # the world's z axis seen by the camera
    x, y = (u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy
    height = (x * up[0] + y * up[1] + up[2]) / np.sqrt(x * x + y * y + 1)
    share = height.clip(0, 1)[..., None].astype(np.float32) ** 0.5
    horizon, zenith = 255 * np.array([lighting.horizon, lighting.zenith], np.float32)
    return np.asarray(horizon + share * (zenith - horizon), dtype=np.float32)


def _sample(pyramid: tuple[ImageArray, ...], s: Float64, t: Float64, level: Float64) -> FloatArray:
    """(H, W, 3) float32: the texture at shares (s, t), trilinear between mip-map levels.

    The level comes from the area of a sample, not its longer side: seen at a slant a surface
    stays sharp, and the supersampling takes what aliases.
    """
    level = level.clip(0, len(pyramid) - 1).astype(np.float32)
    result = np.zeros((*s.shape, 3), np.float32)
    for k in range(int(level.min()), int(np.ceil(level.max())) + 1):
        height, width = pyramid[k].shape[:2]
        x, y = (s * width - 0.5).astype(np.float32), (t * height - 0.5).astype(np.float32)
        result += (1 - np.abs(level - k)).clip(0)[..., None] * bilinear(pyramid[k], x, y)
    return result
