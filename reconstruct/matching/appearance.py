"""Whether two photos of a model look alike between the points that they share.

Keypoints are found on the furniture of two equal rooms and not on their wallpapers. So one photo is
warped to the other by the planes that the model's points lie on, as in a plane sweep (Collins, CVPR
1996), and grey values are compared in windows that hold no point: where they have texture, their
correlation on the plane that fits best says whether it is the same texture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from reconstruct.geometry import Float64, projection_center
from reconstruct.images import shrink, to_grey
from reconstruct.matching.conflicts import View
from reconstruct.types import ImageArray

MAX_EDGE: Final = 480
"""Photos are shrunk to it."""
WINDOW: Final = 31
"""Edge of the windows that are compared, in pixels of the shrunk photo."""
MIN_DEVIATION: Final = 1.0
"""Of the grey values (0 to 255) of a window; noise must not become texture."""
MIN_WINDOWS: Final = 0.5
"""Pixels that can be compared, in windows; with fewer nothing is said of a pair."""
VOID: Final = 0.04
"""Distance from the nearest point from which pixels are compared, as a part of the longer edge."""
MAX_PLANES, MIN_ON_PLANE, PLANE_SAMPLES = 6, 12, 300
PLANE_TOLERANCE: Final = 0.01
"""How far a point may lie off its plane, as a part of the median depth."""
STEP: Final = 8
"""A warp is computed at every so many pixels, and interpolated."""

Grey = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Appearance:
    """What a photo of a model looks like.

    Attributes:
        view: The points it sees.
        grey: (H, W) smoothed grey values of the shrunk photo.
    """

    view: View
    grey: Grey

    @cached_property
    def scale(self) -> Float64:
        """(2,) pixels of the shrunk photo for one of the photo, in x and y."""
        return np.array(self.grey.shape[::-1]) / self.view.size

    @cached_property
    def planes(self) -> list[Float64]:
        """(4,) each: n and d of the planes n x = d that most of the points lie on."""
        depth = float(np.median(self.view.depths(self.view.points)))
        return find_planes(self.view.points, PLANE_TOLERANCE * depth)

    @cached_property
    def rays(self) -> tuple[tuple[int, int], Float64]:
        """(rows, columns) of the coarse grid, and (rows * columns, 3) directions in the world."""
        height, width = self.grey.shape
        rows, columns = -(-height // STEP), -(-width // STEP)
        y, x = np.indices((rows, columns)) * STEP + STEP / 2
        pixels = np.column_stack([x.ravel(), y.ravel()]) / self.scale
        flat = np.asarray(self.view.camera.cam_from_img(pixels), np.float64)
        directions = np.column_stack([flat, np.ones(len(flat))]) @ self.view.pose[:, :3]
        return (rows, columns), directions

    @cached_property
    def void(self) -> NDArray[np.bool_]:
        """(H, W) whether a pixel is far from all points."""
        free = np.full(self.grey.shape, 255, np.uint8)
        pixels = (self.view.pixels * self.scale).astype(np.int64)
        inside = (pixels >= 0).all(1) & (pixels < free.shape[::-1]).all(1)
        free[pixels[inside, 1], pixels[inside, 0]] = 0
        distance = cv2.distanceTransform(free, cv2.DIST_L2, 3)
        return np.asarray(distance > VOID * max(self.grey.shape))


def appearance(view: View, photo: ImageArray) -> Appearance:
    """What a photo, (H, W, 3) RGB, looks like."""
    grey = shrink(to_grey(photo), MAX_EDGE).astype(np.float32)
    return Appearance(view, np.asarray(cv2.GaussianBlur(grey, (0, 0), 1.5), np.float32))


def likeness(first: Appearance, second: Appearance) -> tuple[float, float]:
    """Windows in which two photos can be compared, and the mean correlation there (0, 0: none), the
    smaller of those of either photo warped to the other."""
    compared = [_correlations(a, b) for a, b in ((first, second), (second, first))]
    windows = min(map(len, compared)) / WINDOW**2
    if windows < MIN_WINDOWS:
        return 0.0, 0.0
    return windows, min(float(values.mean()) for values in compared)


def _correlations(target: Appearance, source: Appearance) -> Grey:
    """Correlation of the windows around pixels far from all points, each on the best plane."""
    best = np.full(target.grey.shape, -np.inf, np.float32)
    for plane in target.planes:
        warp = _warp(target, source, plane)
        if warp is not None:
            np.maximum(best, _windows(target.grey, source.grey, warp), out=best)
    return best[np.isfinite(best) & target.void]


def _warp(target: Appearance, source: Appearance, plane: Float64) -> Grey | None:
    """(2, H, W) x and y in the source, as OpenCV's `remap` takes it, of what a pixel of the target
    sees if it lies on a plane; infinitely far outside where it does not. None: nowhere."""
    shape, rays = target.rays
    center = projection_center(target.view.pose)
    facing = rays @ plane[:3]
    depths = (plane[3] - plane[:3] @ center) / np.where(np.abs(facing) < 1e-12, 1e-12, facing)
    pixels = source.view.project(center + depths[:, None] * rays)
    pixels[(depths <= 0) | ~np.isfinite(pixels).all(1)] = -1e4
    if (pixels < 0).any(1).all():
        return None
    height, width = target.grey.shape
    full = shape[1] * STEP, shape[0] * STEP
    columns = (pixels * source.scale - 0.5).astype(np.float32).reshape(*shape, 2)
    return np.moveaxis(np.asarray(cv2.resize(columns, full), np.float32)[:height, :width], 2, 0)


def _windows(target: Grey, source: Grey, warp: Grey) -> Grey:
    """(H, W) correlation of the windows around pixels with what a warp finds there; -inf where
    there is no texture, or nothing to compare."""
    x, y = (np.ascontiguousarray(column) for column in warp)
    inside = (x > 0) & (y > 0) & (x < source.shape[1] - 1) & (y < source.shape[0] - 1)
    (x_down, x_right), (y_down, y_right) = np.gradient(x), np.gradient(y)
    area = np.abs(x_right * y_down - x_down * y_right)
    inside &= (area > 0.25) & (area < 4.0)
    known = inside.astype(np.float32)
    share = np.maximum(_mean(known), 1e-6)
    found = cv2.remap(source, x, y, cv2.INTER_LINEAR)
    means = [_mean(values * known) / share for values in (target, found)]
    variances = [
        _mean(values * values * known) / share - mean**2
        for values, mean in zip((target, found), means, strict=True)
    ]
    covariance = _mean(target * found * known) / share - means[0] * means[1]
    flat = MIN_DEVIATION**2
    correlation = covariance / np.sqrt(np.maximum(variances[0] * variances[1], 1e-6))
    correlation = np.where(variances[1] > 0.25 * flat, correlation, 0.0)
    return np.where(inside & (share > 0.9) & (variances[0] > flat), correlation, -np.inf)


def _mean(values: Grey) -> Grey:
    """Mean of the window around each pixel."""
    return np.asarray(cv2.boxFilter(values, -1, (WINDOW, WINDOW)), np.float32)


def find_planes(points: Float64, tolerance: float) -> list[Float64]:
    """Planes that most of (N, 3) points lie on, one after the other (RANSAC): (4,) n and d each,
    n x = d."""
    rng = np.random.default_rng(0)
    planes: list[Float64] = []
    while len(points) >= MIN_ON_PLANE and len(planes) < MAX_PLANES:
        corners = points[rng.integers(0, len(points), (PLANE_SAMPLES, 3))]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        lengths = np.linalg.norm(normals, axis=1)
        normals = normals[lengths > 0] / lengths[lengths > 0, None]
        offsets = (normals * corners[lengths > 0, 0]).sum(1)
        near = np.abs(points @ normals.T - offsets) < tolerance
        if not near.size or near.sum(0).max() < MIN_ON_PLANE:
            break
        on_plane = near[:, near.sum(0).argmax()]
        middle = points[on_plane].mean(0)
        normal = np.linalg.svd(points[on_plane] - middle)[2][2]
        planes.append(np.append(normal, normal @ middle))
        points = points[~on_plane]
    return planes
