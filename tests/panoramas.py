"""Equirectangular panoramas of the synthetic square, rendered by way of the faces of a cube."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from reconstruct.datasets.rendering import LitScene, illuminate, render
from reconstruct.datasets.sampling import bilinear
from reconstruct.datasets.scene import PinholeCamera, View, look_at
from reconstruct.datasets.synthetic import DAY, build_scene
from reconstruct.geometry import Float64
from reconstruct.types import ImageArray

FACES = {
    "ahead": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "right": [[0, 0, -1], [0, 1, 0], [1, 0, 0]],
    "behind": [[-1, 0, 0], [0, 1, 0], [0, 0, -1]],
    "left": [[0, 0, 1], [0, 1, 0], [-1, 0, 0]],
    "up": [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
    "down": [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
}
"""(3, 3) face_from_panorama; x right, y down, z forward."""
COVERED = 1.1
"""Half a face's width at depth 1: a little more than the face of a cube."""


def render_panorama(lit: LitScene, pose: Float64, width: int) -> ImageArray:
    """(width / 2, width, 3) uint8 of a panorama with the pose (3, 4) panorama_from_world."""
    lon, lat = np.meshgrid(
        ((np.arange(width) + 0.5) / width - 0.5) * 2 * np.pi,
        (0.5 - (np.arange(width // 2) + 0.5) / (width // 2)) * np.pi,
    )
    rays = np.stack([np.cos(lat) * np.sin(lon), -np.sin(lat), np.cos(lat) * np.cos(lon)], -1)
    size = round(width / np.pi * COVERED)
    focal = size / 2 / COVERED
    camera = PinholeCamera(width=size, height=size, fx=focal, fy=focal, cx=size / 2, cy=size / 2)
    axes = np.array([rows[2] for rows in FACES.values()])
    nearest = np.argmax(rays @ axes.T, axis=-1)
    panorama = np.zeros((width // 2, width, 3), np.uint8)
    for number, (name, rows) in enumerate(FACES.items()):
        view = View(name=name, camera=camera, cam_from_world=np.array(rows, float) @ pose)
        x, y, z = np.moveaxis(rays @ np.array(rows).T, -1, 0)
        here = nearest == number
        z = np.where(here, z, 1.0)
        u, v = (focal * x / z + size / 2 - 0.5), (focal * y / z + size / 2 - 0.5)
        face = bilinear(render(lit, view).image, u.astype(np.float32), v.astype(np.float32))
        panorama[here] = face[here]
    return panorama


def walk(count: int) -> list[Float64]:
    """(3, 4) level poses of panoramas on a curve through the square, which look here and there."""
    poses = []
    for k in range(count):
        angle = np.radians(-60 + 120 * k / (count - 1))
        center = np.array([5.5 * np.sin(angle), -5.5 * np.cos(angle) + 1.0, 1.7 + 0.1 * (k % 3)])
        ahead = np.array([np.cos(2.4 * k), np.sin(2.4 * k), 0.0])
        poses.append(look_at(center, center + ahead))
    return poses


def write_panoramas(folder: Path, poses: Sequence[Float64], width: int, seed: int = 0) -> None:
    """Render panoramas of the square to ``folder``: P00.jpg, P01.jpg ..."""
    lit = illuminate(build_scene(seed), DAY)
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for k, pose in enumerate(poses):
        panorama = render_panorama(lit, pose, width) + random.normal(0, 1.5, (width // 2, width, 3))
        picture = Image.fromarray(np.rint(panorama).clip(0, 255).astype(np.uint8))
        picture.save(folder / f"P{k:02d}.jpg", quality=95, subsampling=0)
