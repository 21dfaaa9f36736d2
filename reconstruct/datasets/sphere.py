"""Perspective views of an equirectangular panorama: pure functions on directions and pixels.

Panorama: COLMAP pixels; u runs from longitude -180 to 180 degrees (to the right), v from latitude
90 (up) to -90. Its frame and that of a view: x right, y down, z forward, through the middle of the
picture. Views share the centre of the panorama, so a pose of one is a rotation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from reconstruct.datasets.sampling import bilinear
from reconstruct.geometry import Float64
from reconstruct.types import ImageArray


@dataclass(frozen=True, slots=True, kw_only=True)
class SphereView:
    """A square pinhole picture of a part of a panorama, all in degrees.

    yaw_deg: to the right. pitch_deg: up. field_of_view_deg: from edge to edge. size: pixels.
    """

    yaw_deg: float
    pitch_deg: float
    field_of_view_deg: float
    size: int

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        return self.size / 2 / float(np.tan(np.radians(self.field_of_view_deg / 2)))

    @property
    def rotation(self) -> Float64:
        """(3, 3) view_from_panorama: the pitch after the yaw."""
        yaw, pitch = np.radians([self.yaw_deg, self.pitch_deg])
        turn = [[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]]
        tilt = [[1, 0, 0], [0, np.cos(pitch), np.sin(pitch)], [0, -np.sin(pitch), np.cos(pitch)]]
        return np.array(tilt) @ np.array(turn)

    def rays(self) -> Float64:
        """(size, size, 3) unit directions of its pixels, in the panorama's frame."""
        across = (np.arange(self.size) + 0.5 - self.size / 2) / self.focal
        x, y = np.meshgrid(across, across)
        rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ self.rotation
        return np.asarray(rays / np.linalg.norm(rays, axis=-1, keepdims=True))


def panorama_pixels(rays: Float64, width: int) -> Float64:
    """(..., 2) COLMAP pixels, in a panorama ``width`` pixels wide, of (..., 3) directions."""
    longitude = np.arctan2(rays[..., 0], rays[..., 2])
    latitude = np.arctan2(-rays[..., 1], np.hypot(rays[..., 0], rays[..., 2]))
    u = (longitude / (2 * np.pi) + 0.5) * width
    v = (0.5 - latitude / np.pi) * (width / 2)
    return np.stack([u, v], axis=-1)


def cut(panorama: ImageArray, view: SphereView) -> ImageArray:
    """(size, size, C) uint8 picture of a view of the (H, 2 H, C) panorama, bilinear.

    A panorama that is finer than the view is shrunk before, so that nothing aliases.
    """
    width = round(2 * np.pi * view.focal / 2) * 2
    if width < panorama.shape[1]:
        smaller = cv2.resize(panorama, (width, width // 2), interpolation=cv2.INTER_AREA)
        panorama = np.asarray(smaller, np.uint8).reshape(width // 2, width, -1)
    height, width = panorama.shape[:2]
    u, v = np.moveaxis(panorama_pixels(view.rays(), width), -1, 0).astype(np.float32)
    # 0.5: from COLMAP's pixels to indices. One more column on each side closes the circle.
    closed = np.concatenate([panorama[:, -1:], panorama, panorama[:, :1]], axis=1)
    return bilinear(closed, u + 0.5, (v - 0.5).clip(0, height - 1))


def nearest_view(views: Sequence[SphereView], view: SphereView) -> ImageArray:
    """(size, size) uint8: 255 where a pixel of ``view`` is nearer to its axis than to that of any
    other view, else 0. Each direction then belongs to one view."""
    axes = np.array([other.rotation[2] for other in views])
    nearest = np.argmax(np.round(view.rays() @ axes.T, 12), axis=-1)
    return np.where(nearest == list(views).index(view), 255, 0).astype(np.uint8)
