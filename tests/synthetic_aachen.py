"""The synthetic town square in the layout of Aachen Day-Night, with the queries' exact poses.

    images_upright/db/0000.jpg ...                    by day, from two arcs
    images_upright/query/{day,night}/synthetic/day-00.jpg ...
    3D-models/synthetic.nvm  3D-models/database_intrinsics.txt
    queries/{day,night}_time_queries_with_intrinsics.txt
    ground_truth.txt                                  name qw qx qy qz tx ty tz of every query
    image_pairs_to_match.txt                          pairs of the map, and of night queries with it

All cameras have one radial parameter (SIMPLE_RADIAL). Equal arguments give equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from reconstruct.datasets.nvm import NvmCamera, NvmModel, write_nvm
from reconstruct.datasets.rendering import LitScene, Rendered, illuminate, render
from reconstruct.datasets.scene import PinholeCamera, View, look_at, pixel_grid, project
from reconstruct.datasets.synthetic import DAY, NIGHT, build_scene, write_photo
from reconstruct.geometry import Float64
from reconstruct.storage.poses import write_poses
from reconstruct.storage.queries import write_intrinsics
from reconstruct.types import Intrinsics

SCENE_SIZE_M = 30.0
"""Width of the square; cameras stand within 17 m of each other."""

MARGIN = 1.1
"""A distorted image is cut from an ideal one that is larger by this factor."""

RADIAL_DATABASE, RADIAL_QUERY = -0.03, -0.05
POINTS_PER_VIEW = 150
SAME_SURFACE_M = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shot:
    """A photo to be rendered: ``view`` with the ideal camera, ``radial`` is COLMAP's k."""

    view: View
    radial: float

    @property
    def intrinsics(self) -> Intrinsics:
        c = self.view.camera
        params = (c.fx, c.cx, c.cy, self.radial)
        return Intrinsics(model="SIMPLE_RADIAL", size=(c.width, c.height), params=params)


def write_aachen(
    folder: Path | str,
    *,
    database: int = 44,
    queries: int = 20,
    size: tuple[int, int] = (640, 480),
    seed: int = 0,
    texels_per_m: float = 96.0,
    far: bool = False,
) -> Path:
    """Render photos of the map and queries; returns the folder.

    Args:
        folder: The folder to write.
        database: Number of photos of the map.
        queries: Number of queries, by day and again by night.
        size: (width, height) of the photos.
        seed: Seed of the scene and of the poses.
        texels_per_m: See `reconstruct.datasets.synthetic.build_scene`.
        far: Queries stand in turn well inside and outside of the map's arcs, and up to 20 degrees
            beyond their ends.
    """
    root, scene = Path(folder), build_scene(seed, texels_per_m=texels_per_m)
    rng = np.random.default_rng(seed)
    day, night = illuminate(scene, DAY), illuminate(scene, NIGHT)
    mapped = _database_shots(database, size)
    depths = [_take(root, day, shot, seed).depth for shot in mapped]
    _write_reference(root, mapped, depths, rng)
    truth = {}
    for group, lit in (("day", day), ("night", night)):
        shots = _query_shots(group, queries, size, rng, far)
        for shot in shots:
            _take(root, lit, shot, seed)
            truth[shot.view.name] = shot.view.cam_from_world
        path = root / "queries" / f"{group}_time_queries_with_intrinsics.txt"
        write_intrinsics(path, [(shot.view.name, shot.intrinsics) for shot in shots])
    write_poses(root / "ground_truth.txt", truth)
    _write_pairs(root, {shot.view.name: shot.view.cam_from_world for shot in mapped}, truth)
    return root


def _write_pairs(root: Path, mapped: Mapping[str, Float64], truth: Mapping[str, Float64]) -> None:
    """Each photo of the map with 7 others, each query by night with 8."""
    night = {name: pose for name, pose in truth.items() if "night" in name}
    pairs = {
        tuple(sorted((name, other))) for name in mapped for other in _near(name, mapped, mapped, 7)
    }
    asked = [(name, other) for name in sorted(night) for other in _near(name, night, mapped, 8)]
    lines = "".join(f"{first} {second}\n" for first, second in [*sorted(pairs), *asked])
    (root / "image_pairs_to_match.txt").write_text(lines, encoding="utf-8")


def _near(
    name: str, views: Mapping[str, Float64], mapped: Mapping[str, Float64], count: int
) -> list[str]:
    """Photos of the map that look the most as a view does; a metre counts as 3 degrees."""
    pose = views[name]

    def cost(other: Float64) -> float:
        turn = np.degrees(np.arccos(np.clip(pose[2, :3] @ other[2, :3], -1.0, 1.0)))
        away = np.linalg.norm(pose[:, :3].T @ pose[:, 3] - other[:, :3].T @ other[:, 3])
        return float(turn + 3.0 * away)

    return sorted(mapped.keys() - {name}, key=lambda n: (cost(mapped[n]), n))[:count]


def _shot(
    name: str, size: tuple[int, int], angle: float, radius: float, target: Float64, radial: float
) -> _Shot:
    """A camera on the arc at ``angle`` (radians, 0 is -y), 62 degrees of view across."""
    width, height = size
    focal = width / 2 / np.tan(np.radians(31.0))
    camera = PinholeCamera(
        width=width, height=height, fx=focal, fy=focal, cx=width / 2, cy=height / 2
    )
    center = (radius * np.sin(angle), -radius * np.cos(angle), 2.3 + 0.7 * np.sin(11.0 * angle))
    view = View(name=name, camera=camera, cam_from_world=look_at(center, target))
    return _Shot(view=view, radial=radial)


def _database_shots(count: int, size: tuple[int, int]) -> list[_Shot]:
    """Two arcs, the outer one with the larger half."""
    inner = count * 9 // 20
    arcs = [(9.6, a) for a in np.linspace(-58, 58, count - inner)]
    arcs += [(7.8, a) for a in np.linspace(-50, 50, inner)]
    shots = []
    for number, (radius, angle_deg) in enumerate(arcs):
        angle = np.radians(angle_deg)
        target = np.array([0.6 * np.cos(5.0 * angle), 0.6, 2.1])
        name = f"db/{number:04d}.jpg"
        shots.append(_shot(name, size, angle, radius, target, RADIAL_DATABASE))
    return shots


def _query_shots(
    group: str, count: int, size: tuple[int, int], rng: np.random.Generator, far: bool
) -> list[_Shot]:
    """Positions between the two arcs, or far from them, with random directions."""
    shots = []
    end = 78 if far else 48
    for number, angle_deg in enumerate(np.linspace(-end, end, count) + rng.uniform(-2, 2, count)):
        radius = rng.uniform(*((4.5, 5.5), (12.0, 13.0))[number % 2] if far else (8.0, 9.4))
        turn = rng.uniform([-1.2, 0.0, 1.7], [1.2, 1.2, 2.6])
        name = f"query/{group}/synthetic/{group}-{number:02d}.jpg"
        shots.append(_shot(name, size, np.radians(angle_deg), radius, turn, RADIAL_QUERY))
    return shots


def _take(root: Path, lit: LitScene, shot: _Shot, seed: int) -> Rendered:
    """Write the photo as the distorting camera takes it; returns the ideal, larger image."""
    c = shot.view.camera
    width, height = round(c.width * MARGIN), round(c.height * MARGIN)
    ideal = replace(c, width=width, height=height, cx=width / 2, cy=height / 2)
    noise = np.random.default_rng([seed, *shot.view.name.encode()])
    rendered = render(lit, replace(shot.view, camera=ideal), noise)
    u, v = np.broadcast_arrays(*pixel_grid(c.width, c.height))
    x, y = _undistort((u - c.cx) / c.fx, (v - c.cy) / c.fy, shot.radial)
    # - 0.5: OpenCV counts from the centre of the first pixel.
    columns = (x * ideal.fx + ideal.cx - 0.5).astype(np.float32)
    rows = (y * ideal.fy + ideal.cy - 0.5).astype(np.float32)
    photo = np.asarray(cv2.remap(rendered.image, columns, rows, cv2.INTER_CUBIC), np.uint8)
    path = root / "images_upright" / shot.view.name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_photo(path, photo)
    return rendered


def _undistort(x: Float64, y: Float64, k: float) -> tuple[Float64, Float64]:
    """Positions on the plane z = 1 that SIMPLE_RADIAL moves to (x, y): fixed-point iteration."""
    ideal_x, ideal_y = x, y
    for _ in range(20):
        factor = 1.0 + k * (ideal_x**2 + ideal_y**2)
        ideal_x, ideal_y = x / factor, y / factor
    return ideal_x, ideal_y


def _write_reference(
    root: Path,
    shots: Sequence[_Shot],
    depths: Sequence[NDArray[np.float32]],
    rng: np.random.Generator,
) -> None:
    """The .nvm with points on the surfaces that the photos see, and the intrinsics."""
    xyz = np.concatenate(
        [_surface_points(shot, depth, rng) for shot, depth in zip(shots, depths, strict=True)]
    )
    seen = [_observations(shot, depth, xyz) for shot, depth in zip(shots, depths, strict=True)]
    rows = [
        np.column_stack([points, np.full(len(points), i)]) for i, (points, _) in enumerate(seen)
    ]
    model = NvmModel(
        cameras=tuple(
            NvmCamera(
                name=shot.view.name,
                focal_px=shot.view.camera.fx,
                radial=-shot.radial,
                cam_from_world=shot.view.cam_from_world,
            )
            for shot in shots
        ),
        xyz=xyz,
        observations=np.concatenate(rows),
        positions=np.concatenate([positions for _, positions in seen]),
    )
    folder = root / "3D-models"
    folder.mkdir(parents=True, exist_ok=True)
    write_nvm(folder / "synthetic.nvm", model)
    listed = [(shot.view.name, shot.intrinsics) for shot in shots]
    write_intrinsics(folder / "database_intrinsics.txt", listed)


def _surface_points(shot: _Shot, depth: NDArray[np.float32], rng: np.random.Generator) -> Float64:
    """(P, 3) world points at random pixels of the ideal picture that show a surface."""
    rows, columns = np.nonzero(depth)
    chosen = rng.choice(len(rows), min(POINTS_PER_VIEW, len(rows)), replace=False)
    rows, columns = rows[chosen], columns[chosen]
    camera, pose = shot.view.camera, shot.view.cam_from_world
    z = depth[rows, columns].astype(np.float64)
    # + 0.5: depth is that of the pixel's centre.
    x = (columns + 0.5 - depth.shape[1] / 2) / camera.fx * z
    y = (rows + 0.5 - depth.shape[0] / 2) / camera.fy * z
    return np.asarray((np.column_stack([x, y, z]) - pose[:, 3]) @ pose[:, :3])


def _observations(
    shot: _Shot, depth: NDArray[np.float32], xyz: Float64
) -> tuple[NDArray[np.int64], Float64]:
    """Which points a photo shows, and their (N, 2) pixels in it, distorted."""
    c = shot.view.camera
    pixels, z = project(shot.view, xyz)
    x, y = (pixels[:, 0] - c.cx) / c.fx, (pixels[:, 1] - c.cy) / c.fy
    columns = np.floor(x * c.fx + depth.shape[1] / 2).clip(0, depth.shape[1] - 1).astype(np.int64)
    rows = np.floor(y * c.fy + depth.shape[0] / 2).clip(0, depth.shape[0] - 1).astype(np.int64)
    factor = 1.0 + shot.radial * (x**2 + y**2)
    u, v = x * factor * c.fx + c.cx, y * factor * c.fy + c.cy
    inside = (z > 0) & (u >= 0) & (v >= 0) & (u < c.width) & (v < c.height)
    visible = inside & (np.abs(depth[rows, columns] - z) < SAME_SURFACE_M)
    index = np.flatnonzero(visible)
    return index, np.column_stack([u, v])[index]
