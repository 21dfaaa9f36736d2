"""A synthetic town square with exact ground truth: the demo's photos, and the truth of tests.

Houses stand around three sides of a square with a monument, kiosks and crates; cameras look in from
an arc on the fourth. At night the square has only its lamps and lit windows.

    written = write_dataset(folder, views=12, size=(640, 480), seed=0, night=True)

    images/day-00.jpg ...     photos, and night/night-00.jpg ... from poses between them
    depth/day-00.png ...      uint16 millimetres along z, 0 where no surface is
    reference/                COLMAP text model (PINHOLE, poses, no points) of images/
    night_reference/          the same of night/

Equal arguments give equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator

from reconstruct.datasets import textures
from reconstruct.datasets.rendering import LitScene, illuminate, render
from reconstruct.datasets.scene import Lighting, PinholeCamera, Quad, Scene, View, look_at
from reconstruct.errors import UsageError
from reconstruct.geometry import quaternion
from reconstruct.types import FloatArray, ImageArray

DAY = Lighting(
    sky=(0.30, 0.34, 0.42),
    sun=(0.98, 0.90, 0.76),
    to_sun=(-0.75, -0.6, 0.9),
    lamp=(0.0, 0.0, 0.0),
    glow=0.0,
    zenith=(0.42, 0.60, 0.86),
    horizon=(0.86, 0.90, 0.95),
    noise=1.2,
)

NIGHT = Lighting(
    sky=(0.008, 0.011, 0.022),
    sun=(0.0, 0.0, 0.0),
    to_sun=(0.0, 0.0, 1.0),
    lamp=(2.2, 1.4, 0.7),
    glow=0.85,
    zenith=(0.02, 0.03, 0.07),
    horizon=(0.10, 0.09, 0.12),
    noise=3.5,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyntheticDataset:
    """The output of `write_dataset`; names are relative to ``images`` and ``night``, sorted."""

    images: Path
    names: tuple[str, ...]
    depth: Path
    reference: Path
    night: Path | None
    night_names: tuple[str, ...]
    night_reference: Path | None


def build_scene(seed: int = 0, *, texels_per_m: float = 96.0) -> Scene:
    """The square: 30 m wide, houses up to 8 m high, origin at its centre on the ground.

    Args:
        seed: Seed of shapes and textures.
        texels_per_m: 96 keeps images of up to about 1000 pixels sharp; shapes do not depend on it.
    """
    rng = np.random.default_rng(seed)
    ground = textures.paving(rng.spawn(1)[0], (30.0, 24.0), texels_per_m * 0.75)
    corner, right, down = np.array([(-15.0, 14.0, 0.0), (30.0, 0.0, 0.0), (0.0, -24.0, 0.0)])
    quads = [Quad(origin=corner, edge_u=right, edge_v=down, albedo=ground.albedo)]
    for angle_deg in (-84.0, -57.0, -29.0, -2.0, 27.0, 55.0, 83.0):
        quads += _house(rng, angle_deg, rng.uniform(6.4, 8.4), texels_per_m)
    for angle_deg in (-101.0, -42.0, -15.0, 12.0, 41.0, 101.0):  # a second row, in the gaps
        quads += _house(rng, angle_deg, rng.uniform(10.8, 11.8), texels_per_m)
    quads += _furniture(rng, texels_per_m)
    lamps = [(-4.6, 2.6), (-1.9, 4.4), (2.6, 3.6), (4.9, 0.8), (-5.2, -1.4)]
    for x, y in lamps:
        quads += box(rng, textures.stone, (x, y, 0.0), (0.14, 0.14, 3.0), 20.0, texels_per_m)
        # The lantern hangs beside its post, which would else stand in the light.
        lantern = (x + 0.24, y - 0.1, 2.75)
        quads += box(rng, textures.lantern, lantern, (0.3, 0.3, 0.4), 20.0, texels_per_m)
    return Scene(quads=tuple(quads), lamps=np.array([(x + 0.24, y - 0.1, 2.95) for x, y in lamps]))


def box(
    rng: Generator,
    painter: textures.Painter,
    base: tuple[float, float, float],
    size: tuple[float, float, float],
    heading_deg: float,
    density: float,
) -> list[Quad]:
    """A box.

    It is painted with children of ``rng``, so that shapes do not depend on the density.

    Args:
        rng: Source of all random choices.
        painter: Paints its sides.
        base: Centre of the base in metres.
        size: Width, depth and height in metres.
        heading_deg: Rotation about z; at 0 the front faces -y.
        density: Texels per metre.
    """
    angle = np.radians(heading_deg)
    width, depth, height = size
    x = width * np.array([np.cos(angle), np.sin(angle), 0.0])
    y = depth * np.array([-np.sin(angle), np.cos(angle), 0.0])
    z = np.array([0.0, 0.0, height])
    low = np.asarray(base)
    faces = [
        (low + z - x / 2 - y / 2, x, -z),  # front
        (low + z + x / 2 - y / 2, y, -z),
        (low + z + x / 2 + y / 2, -x, -z),
        (low + z - x / 2 + y / 2, -y, -z),
        (low + z - x / 2 + y / 2, x, -y),  # top
    ]
    if low[2] > 0:
        faces.append((low - x / 2 - y / 2, x, y))
    quads = []
    for origin, u, v in faces:
        extent = float(np.linalg.norm(u)), float(np.linalg.norm(v))
        albedo, glow = painter(rng.spawn(1)[0], extent, density)
        quads.append(Quad(origin=origin, edge_u=u, edge_v=v, albedo=albedo, glow=glow))
    return quads


def _house(rng: Generator, angle_deg: float, front: float, density: float) -> list[Quad]:
    """A house with cornice and shop sign that faces the centre.

    angle_deg: direction from the centre, 0 is +y, clockwise; front: distance from the centre in
    metres.
    """
    angle_deg += rng.uniform(-2, 2)
    angle = np.radians(angle_deg)
    outward = np.array([np.sin(angle), np.cos(angle)])
    along = np.array([np.cos(angle), -np.sin(angle)])
    heading = rng.uniform(-6, 6) - angle_deg
    width, depth, height = rng.uniform(2.9, 3.7), 2.0, rng.uniform(5.2, 8.0)

    def part(
        painter: textures.Painter, ahead: float, z: float, size: tuple[float, float, float]
    ) -> list[Quad]:
        x, y = outward * (front + depth / 2 - ahead) + along * rng.uniform(-0.05, 0.05)
        return box(rng, painter, (float(x), float(y), z), size, heading, density)

    quads = part(textures.facade, 0.0, 0.0, (width, depth, height))
    quads += part(textures.stone, 0.0, height, (width + 0.3, depth + 0.4, 0.35))
    quads += part(textures.posters, depth / 2 + 0.3, 2.5, (0.12, 0.6, rng.uniform(0.5, 0.9)))
    return quads


def _furniture(rng: Generator, density: float) -> list[Quad]:
    """Objects in the square, at random distances and headings."""
    pieces: Sequence[tuple[textures.Painter, tuple[float, ...], tuple[float, float, float], float]]
    pieces = (
        (textures.stone, (0.2, 0.9, 0.0), (2.6, 2.6, 0.45), 12.0),
        (textures.stone, (0.2, 0.9, 0.45), (1.5, 1.5, 1.0), 12.0),
        (textures.posters, (0.2, 0.9, 1.45), (0.8, 0.8, 1.7), 12.0),
        (textures.posters, (-3.3, 0.2, 0.0), (1.5, 1.3, 2.3), -28.0),
        (textures.facade, (3.6, 2.2, 0.0), (1.7, 1.4, 2.5), 35.0),
        (textures.crate, (2.4, -1.3, 0.0), (0.9, 0.8, 0.7), 24.0),
        (textures.crate, (3.3, -0.7, 0.0), (0.8, 0.9, 0.9), -14.0),
        (textures.crate, (2.5, -1.2, 0.7), (0.6, 0.5, 0.5), 51.0),
        (textures.crate, (-1.7, -1.6, 0.0), (1.0, 0.6, 0.5), -40.0),
        (textures.stone, (-1.3, 3.4, 0.0), (1.2, 0.7, 0.8), 30.0),
    )
    quads = []
    for painter, (x, y, z), size, heading_deg in pieces:
        quads += box(rng, painter, (x, y, z), size, heading_deg, density)
    return quads


def orbit_views(
    count: int,
    size: tuple[int, int] = (640, 480),
    *,
    arc_deg: float = 110.0,
    radius_m: float = 9.5,
    prefix: str = "day",
) -> tuple[View, ...]:
    """Views spread over an arc about the centre, from left to right.

    The horizontal field of view is 62 degrees; heights vary between 1.4 and 3.4 m.

    Args:
        count: Number of views.
        size: (width, height) in pixels.
        arc_deg: Angle of the arc.
        radius_m: Distance from the centre.
        prefix: Beginning of the names.
    """
    width, height = size
    focal = width / 2 / np.tan(np.radians(31.0))
    camera = PinholeCamera(
        width=width, height=height, fx=focal, fy=focal, cx=width / 2.0, cy=height / 2.0
    )
    views, digits = [], max(2, len(str(count - 1)))
    for k, angle in enumerate(np.radians(np.linspace(-arc_deg / 2, arc_deg / 2, count))):
        # Heights and targets follow the angle, not the index: views between views fit in.
        z, turn = 2.4 + 1.0 * np.sin(6.0 * angle), 0.3 * np.cos(4.0 * angle)
        pose = look_at(
            (radius_m * np.sin(angle), -radius_m * np.cos(angle), z), (turn, 0.5, 2.3 - 0.1 * z)
        )
        views.append(View(name=f"{prefix}-{k:0{digits}d}", camera=camera, cam_from_world=pose))
    return tuple(views)


def write_dataset(
    folder: Path | str,
    *,
    views: int = 12,
    size: tuple[int, int] = (640, 480),
    seed: int = 0,
    night: bool = False,
    arc_deg: float = 110.0,
    texels_per_m: float = 96.0,
) -> SyntheticDataset:
    """Render the square and write it below ``folder`` (see the module for the layout).

    Files of the same names are overwritten; to get all or nothing, pass a new folder and rename it.

    Args:
        folder: The folder to write.
        views: Number of photos.
        size: (width, height) of the photos.
        seed: 0 or more.
        night: Add ``views - 1`` night photos, each half-way between two day photos.
        arc_deg: Angle of the arc of cameras.
        texels_per_m: See `build_scene`.

    Raises:
        UsageError: Fewer than 2 views.
    """
    if views < 2:
        raise UsageError(f"a synthetic dataset needs at least 2 views, got {views}")
    root, scene = Path(folder), build_scene(seed, texels_per_m=texels_per_m)
    day = orbit_views(views, size, arc_deg=arc_deg)
    _write_shots(root, "images", illuminate(scene, DAY), day, seed)
    write_model(root / "reference", day)
    between: tuple[View, ...] = ()
    if night:
        inner_deg = arc_deg * (views - 2) / (views - 1)
        between = orbit_views(views - 1, size, arc_deg=inner_deg, prefix="night")
        _write_shots(root, "night", illuminate(scene, NIGHT), between, seed)
        write_model(root / "night_reference", between)
    return SyntheticDataset(
        images=root / "images",
        names=tuple(f"{view.name}.jpg" for view in day),
        depth=root / "depth",
        reference=root / "reference",
        night=root / "night" if night else None,
        night_names=tuple(f"{view.name}.jpg" for view in between),
        night_reference=root / "night_reference" if night else None,
    )


def _write_shots(
    root: Path, subfolder: str, lit: LitScene, views: Sequence[View], seed: int
) -> None:
    (root / subfolder).mkdir(parents=True, exist_ok=True)
    (root / "depth").mkdir(exist_ok=True)
    for view in views:
        noise = np.random.default_rng([seed, *view.name.encode()])
        rendered = render(lit, view, noise)
        write_photo(root / subfolder / f"{view.name}.jpg", rendered.image)
        write_depth(root / "depth" / f"{view.name}.png", rendered.depth)


def write_photo(path: Path, image: ImageArray) -> None:
    """Write (H, W, 3) uint8 RGB as a JPEG of quality 95."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, 95]
    path.write_bytes(cv2.imencode(".jpg", image[..., ::-1], quality)[1].tobytes())


def write_depth(path: Path, depth: FloatArray) -> None:
    """Write (H, W) metres as a PNG of uint16 millimetres; distances beyond 65.535 m become that."""
    millimetres = np.round(depth * 1000.0).clip(0, 65535).astype(np.uint16)
    path.write_bytes(cv2.imencode(".png", millimetres)[1].tobytes())


def write_model(folder: Path, views: Sequence[View]) -> None:
    """Write cameras and poses of views as a COLMAP text model without points, with all digits.

    Image and camera ids count from 1; image names are ``<view name>.jpg``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cameras = list(dict.fromkeys(view.camera for view in views))
    lines = []
    for number, c in enumerate(cameras, 1):
        parameters = " ".join(f"{value:.17g}" for value in (c.fx, c.fy, c.cx, c.cy))
        lines.append(f"{number} PINHOLE {c.width} {c.height} {parameters}")
    (folder / "cameras.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = []
    for number, view in enumerate(views, 1):
        pose = (*quaternion(view.cam_from_world[:, :3]), *view.cam_from_world[:, 3])
        numbers = " ".join(f"{value:.17g}" for value in pose)
        # The second line of an image lists its points: none.
        lines.append(f"{number} {numbers} {cameras.index(view.camera) + 1} {view.name}.jpg\n")
    (folder / "images.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "points3D.txt").write_text("", encoding="utf-8")
