"""A synthetic building in the layout of InLoc (see `reconstruct.datasets.inloc`), with exact truth.

Three rooms: 1 on floor DUC1; 2 on floor DUC2 with the same plan, furniture and pictures, but with
another pattern on walls and carpet, and one other picture; 3 on floor DUC1, unlike both. Two scans
per room, each cut into views all around. Equal arguments give equal images and poses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import scipy.io
from numpy.random import Generator
from numpy.typing import NDArray

from reconstruct.datasets import textures
from reconstruct.datasets.inloc import FOCAL_PER_EDGE, mat_file, transformation_file
from reconstruct.datasets.rendering import LitScene, illuminate, render
from reconstruct.datasets.scene import (
    Lighting,
    PinholeCamera,
    Quad,
    Scene,
    View,
    back_project,
    look_at,
)
from reconstruct.datasets.synthetic import box, write_photo
from reconstruct.geometry import Float64
from reconstruct.images import read_image
from reconstruct.storage.poses import write_poses
from reconstruct.types import FloatArray

WIDTH_M, DEPTH_M, HEIGHT_M = 6.4, 5.2, 2.9
"""Size of every room."""

UNMEASURED = 0.01
"""Share of pixels without a 3D point."""

INDOORS = Lighting(
    sky=(0.46, 0.45, 0.43),
    sun=(0.0, 0.0, 0.0),
    to_sun=(0.0, 0.0, 1.0),
    lamp=(1.1, 1.0, 0.85),
    glow=0.0,
    zenith=(0.0, 0.0, 0.0),
    horizon=(0.0, 0.0, 0.0),
    noise=1.5,
)

WALLPAPERS = ((196, 186, 168), (168, 182, 190), (190, 170, 164), (176, 188, 160))


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A room.

    Attributes:
        floor: Name of its floor.
        origin: Position in the frame of all floors, metres.
        shared: Seed of the parts that rooms may have in common.
        distinct: Seed of the parts in which rooms differ.
        scans: (x, y) of the scanner from the room's centre, metres.
    """

    floor: str
    origin: tuple[float, float, float]
    shared: int
    distinct: int
    scans: tuple[tuple[float, float], ...]


ROOMS = (
    Room(floor="DUC1", origin=(0, 0, 0), shared=1, distinct=1, scans=((-1.9, -0.9), (0.3, -1.4))),
    Room(floor="DUC2", origin=(0, 0, 4), shared=1, distinct=2, scans=((1.8, 0.2), (-0.4, 1.2))),
    Room(floor="DUC1", origin=(9, 0, 0), shared=3, distinct=3, scans=((-1.4, 0.8), (1.6, -0.6))),
)


def write_building(
    folder: Path | str,
    *,
    pans: int = 12,
    queries: int = 20,
    size: tuple[int, int] = (480, 360),
    seed: int = 0,
    texels_per_m: float = 110.0,
) -> Path:
    """Render the building; returns the folder.

    Args:
        folder: The folder to write.
        pans: Cut-outs of each of the six scans.
        queries: Number of queries.
        size: (width, height) of cut-outs and queries.
        seed: Seed of the poses of the queries.
        texels_per_m: Density of the textures.
    """
    root, truth = Path(folder), dict[str, dict[str, Float64]]()
    lit = [illuminate(build_room(room, texels_per_m), INDOORS) for room in ROOMS]
    scan = 0
    for room, scene in zip(ROOMS, lit, strict=True):
        for position in room.scans:
            _write_scan(root, room, scene, f"{scan:03d}", position, pans, size)
            scan += 1
    rng = np.random.default_rng(seed)
    for number in range(queries):
        room, scene = ROOMS[number % 3], lit[number % 3]
        view = _query_view(f"query/iphone7/IMG_{731 + number:04d}.JPG", room, size, rng)
        _photo(root, scene, view)
        truth.setdefault(room.floor, {})[view.name] = view.cam_from_world
    (root / "ground_truth").mkdir(parents=True, exist_ok=True)
    for floor, poses in truth.items():
        write_poses(root / "ground_truth" / f"{floor}.txt", poses)
    return root


def build_room(room: Room, texels_per_m: float) -> Scene:
    """Floor, ceiling, four walls, pictures on them, furniture, two lamps."""
    shared, distinct = (
        np.random.default_rng([7, room.shared]),
        np.random.default_rng([8, room.distinct]),
    )
    color = WALLPAPERS[shared.integers(len(WALLPAPERS))]
    quads = _shell(distinct, color, texels_per_m)
    for number, (x, y, heading) in enumerate(_picture_places()):
        size = shared.uniform(0.9, 1.4), 0.05, shared.uniform(0.65, 1.0)
        rng = distinct if number == 4 else shared
        base = (x, y, float(shared.uniform(0.95, 1.35)))
        quads += box(rng.spawn(1)[0], textures.posters, base, size, heading, texels_per_m)
    for _ in range(7):
        x, y = shared.uniform(-2.6, 2.6), shared.choice([-1.0, 1.0]) * shared.uniform(1.5, 2.2)
        size = shared.uniform(0.5, 1.1), shared.uniform(0.4, 0.7), shared.uniform(0.5, 1.1)
        heading, kind = shared.uniform(0, 360), shared.integers(2)
        painter = (textures.crate, textures.stone)[kind]
        base = (float(x), float(y), 0.0)
        quads += box(shared.spawn(1)[0], painter, base, size, heading, texels_per_m)
    move = np.asarray(room.origin, np.float64)
    lamps = np.array([(-1.5, 0.4, HEIGHT_M - 0.3), (1.6, -0.3, HEIGHT_M - 0.3)])
    placed = tuple(replace(quad, origin=quad.origin + move) for quad in quads)
    return Scene(quads=placed, lamps=lamps + move)


def _shell(rng: Generator, color: textures.Color, density: float) -> list[Quad]:
    """The room itself, seen from inside. u runs right and v down as one looks at it."""
    x, y, h = WIDTH_M / 2, DEPTH_M / 2, HEIGHT_M
    wide, deep, down = np.array([2 * x, 0, 0]), np.array([0, 2 * y, 0]), np.array([0, 0, -h])
    sides = [
        ((-x, y, h), wide, down, color),
        ((x, y, h), -deep, down, color),
        ((x, -y, h), -wide, down, color),
        ((-x, -y, h), deep, down, color),
        ((-x, y, 0.0), wide, -deep, (122, 112, 104)),
        ((-x, -y, h), wide, deep, (214, 212, 206)),
    ]
    quads = []
    for origin, u, v, tone in sides:
        extent = float(np.linalg.norm(u)), float(np.linalg.norm(v))
        albedo = wallpaper(rng.spawn(1)[0], extent, density, tone)
        quads.append(Quad(origin=np.array(origin), edge_u=u, edge_v=v, albedo=albedo))
    return quads


def wallpaper(
    rng: Generator, size: textures.Size, density: float, color: textures.Color
) -> NDArray[np.uint8]:
    """(H, W, 3): soft shapes of low contrast. Few keypoints are detected on it, yet one wallpaper
    can be told from another."""
    width, height = (max(2, round(edge * density)) for edge in size)
    shade = np.zeros((height, width), np.float32)
    for _ in range(int(14 * size[0] * size[1])):
        radii = tuple(int(r * density) for r in rng.uniform(0.05, 0.28, 2))
        middle = int(rng.uniform(0, width)), int(rng.uniform(0, height))
        angle, tone = float(rng.uniform(0, 180)), float(rng.uniform(-0.1, 0.1))
        cv2.ellipse(shade, middle, radii, angle, 0, 360, tone, cv2.FILLED)
    soft = np.asarray(cv2.GaussianBlur(shade, (0, 0), 0.025 * density), np.float32)
    painted = np.asarray(color, np.float32) * (1.0 + soft[..., None])
    return np.asarray(painted.clip(0, 255), np.uint8)


def _picture_places() -> list[tuple[float, float, float]]:
    """(x, y, heading_deg) of pictures hung on the walls, the heading as `box` takes it."""
    x, y = WIDTH_M / 2 - 0.03, DEPTH_M / 2 - 0.03
    north = [(-2.1, y, 0.0), (0.1, y, 0.0), (2.0, y, 0.0)]
    east = [(x, 1.3, -90.0), (x, -1.1, -90.0)]
    south = [(2.2, -y, 180.0), (-0.2, -y, 180.0), (-2.0, -y, 180.0)]
    return [*north, *east, *south, (-x, -1.4, 90.0), (-x, 1.0, 90.0)]


def _write_scan(
    root: Path,
    room: Room,
    lit: LitScene,
    scan: str,
    position: tuple[float, float],
    pans: int,
    size: tuple[int, int],
) -> None:
    center = np.add(room.origin, [*position, 1.45])
    rng = np.random.default_rng([9, int(scan)])
    world_from_scan = np.eye(4)
    angle = rng.uniform(0, 2 * np.pi)  # a scanner has a heading of its own
    world_from_scan[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    world_from_scan[:3, 3] = center
    width, height = size
    focal = width / 2 / np.tan(np.radians(30.0))
    camera = PinholeCamera(
        width=width, height=height, fx=focal, fy=focal, cx=width / 2, cy=height / 2
    )
    for number in range(pans):
        pan = round(360 * number / pans)
        heading = np.radians(pan) + angle
        target = np.add(center, [np.cos(heading), np.sin(heading), -0.12])
        name = f"database/cutouts/{room.floor}/{scan}/DUC_cutout_{scan}_{pan}_0.jpg"
        view = View(name=name, camera=camera, cam_from_world=look_at(center, target))
        points = _photo(root, lit, view, rng)
        local = (points - center) @ world_from_scan[:3, :3]
        content = {"XYZcut": local, "RGBcut": read_image(root / name)}
        scipy.io.savemat(mat_file(root, name), content)
    path = transformation_file(root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = "".join(" ".join(f"{value:.17g}" for value in row) + "\n" for row in world_from_scan)
    path.write_text(f"Before general icp:\n{rows}\nAfter general icp:\n{rows}", encoding="utf-8")


def _photo(root: Path, lit: LitScene, view: View, scan: Generator | None = None) -> FloatArray:
    """Write the picture; returns (H, W, 3) world points, NaN where the scan missed."""
    noise = np.random.default_rng([1, *view.name.encode()])
    rendered = render(lit, view, noise)
    path = root / view.name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_photo(path, rendered.image)
    points = back_project(view, rendered.depth)
    if scan is not None:
        points[scan.random(points.shape[:2]) < UNMEASURED] = np.nan
    return np.asarray(points, np.float32)


def _query_view(name: str, room: Room, size: tuple[int, int], rng: Generator) -> View:
    """A phone held somewhere in the middle of the room, in a random direction."""
    width, height = size
    focal = max(size) * FOCAL_PER_EDGE
    camera = PinholeCamera(
        width=width, height=height, fx=focal, fy=focal, cx=width / 2, cy=height / 2
    )
    center = np.asarray(room.origin) + rng.uniform([-1.9, -1.1, 1.35], [1.9, 1.1, 1.75])
    heading = rng.uniform(0, 2 * np.pi)
    ahead = [np.cos(heading), np.sin(heading), rng.uniform(-0.3, 0.05)]
    return View(name=name, camera=camera, cam_from_world=look_at(center, center + ahead))
