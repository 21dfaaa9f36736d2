"""Painted surfaces for synthetic scenes: facades, stone, crates, posters, paving.

Every painter takes a random generator, a size (width, height) in metres and a density in texels per
metre, and returns a `Texture`. No two results of one generator are alike, and no element is
repeated exactly: repetition would confuse matching.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.random import Generator

from reconstruct.types import FloatArray, ImageArray

Size = tuple[float, float]
Color = tuple[float, float, float]

PLASTER = ((214, 190, 150), (196, 132, 104), (226, 214, 190), (160, 176, 160), (206, 168, 92))
BRICK = ((150, 78, 60), (128, 88, 74), (172, 112, 82))
STONE = ((168, 162, 150), (140, 136, 132), (182, 170, 146))
SIGNS = ((36, 60, 110), (120, 30, 34), (28, 84, 60), (220, 200, 120), (40, 40, 44), (230, 228, 220))
LETTERS = "ABDEFGHKLMNPRSTUXZ23456789"


class Texture(NamedTuple):
    """The colours of a surface: albedo and glow, both (H, W, 3) uint8 RGB."""

    albedo: ImageArray
    glow: ImageArray


Painter = Callable[[Generator, Size, float], Texture]


class _Canvas:
    """A texture in the making; positions and sizes in metres from the upper left corner."""

    def __init__(self, albedo: FloatArray, density: float) -> None:
        self.albedo = albedo.clip(0, 255).astype(np.uint8)
        self.glow = np.zeros_like(self.albedo)
        self.density = density

    def _texel(self, x: float, y: float) -> tuple[int, int]:
        return round(x * self.density), round(y * self.density)

    def box(self, x: float, y: float, width: float, height: float, color: Color) -> None:
        corners = self._texel(x, y), self._texel(x + width, y + height)
        cv2.rectangle(self.albedo, *corners, color, cv2.FILLED)

    def shine(self, x: float, y: float, width: float, height: float, color: Color) -> None:
        """Make a box glow in proportion to what is painted there."""
        (x0, y0), (x1, y1) = self._texel(x, y), self._texel(x + width, y + height)
        light = np.asarray(color) * (0.35 + self.albedo[y0:y1, x0:x1] / 255.0)
        self.glow[y0:y1, x0:x1] = light.clip(0, 255)

    def blob(self, x: float, y: float, radii: Size, angle_deg: float, color: Color) -> None:
        axes = self._texel(*radii)
        cv2.ellipse(
            self.albedo, self._texel(x, y), axes, angle_deg, 0, 360, color, cv2.FILLED, cv2.LINE_AA
        )

    def text(self, x: float, y: float, height: float, text: str, color: Color) -> None:
        scale = height * self.density / 22.0  # Hershey capitals are 22 units high at scale 1
        thickness = max(1, round(scale * 3))
        at = self._texel(x, y + height)
        cv2.putText(self.albedo, text, at, 2, scale, color, thickness, cv2.LINE_AA)

    def finish(self, rng: Generator, strength: float) -> Texture:
        """The texture after some weather: stains of all sizes."""
        stains = 1.0 + strength * noise(rng, self.albedo.shape[:2])[..., None]
        weathered = (self.albedo * stains).clip(0, 255)
        return Texture(weathered.astype(np.uint8), self.glow)


def noise(rng: Generator, shape: tuple[int, int], coarsest: int = 128) -> FloatArray:
    """(H, W) float32 with mean about 0 and deviation about 1, every octave alike (1 / f)."""
    height, width = shape
    total, octaves, cell = np.zeros(shape, np.float32), 0, coarsest
    while cell >= 2:
        grid = rng.standard_normal((height // cell + 3, width // cell + 3), np.float32)
        large = cv2.resize(grid, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)
        y, x = rng.integers(0, cell, 2)
        total += large[y : y + height, x : x + width]
        cell, octaves = cell // 2, octaves + 1
    return np.asarray(total / np.sqrt(0.6 * octaves), dtype=np.float32)


def _vary(rng: Generator, color: Color, sigma: float) -> Color:
    """A colour near ``color``: lighter or darker, and slightly another hue."""
    red, green, blue = np.asarray(color) * (1 + sigma * rng.normal()) + 6 * rng.normal(size=3)
    return float(red), float(green), float(blue)


def _pick(rng: Generator, colors: tuple[Color, ...]) -> Color:
    return colors[rng.integers(len(colors))]


def _word(rng: Generator, length: int) -> str:
    return "".join(rng.choice(list(LETTERS), length))


def _masonry(rng: Generator, size: Size, density: float, unit: Size, color: Color) -> FloatArray:
    """(H, W, 3): courses of stones about ``unit`` metres large, each of its own tone."""
    width, height = (max(2, round(edge * density)) for edge in size)
    y = (np.arange(height)[:, None] + 0.5) / density / unit[1]
    course = y.astype(int)
    shift = rng.uniform(0, 8, course.max() + 1)[course]
    stretch = rng.uniform(0.8, 1.25, course.max() + 1)[course]
    x = (np.arange(width)[None] + 0.5) / density / unit[0] * stretch + shift
    tones = rng.normal(1.0, 0.13, (course.max() + 1, int(x.max()) + 1, 1))
    tones = tones + rng.normal(0.0, 0.018, (*tones.shape[:2], 3))
    stones = tones[course, x.astype(int)] * color
    joint = 0.011  # metres, on each side
    near_x = np.minimum(x % 1, 1 - x % 1) * unit[0] < joint
    near_y = np.minimum(y % 1, 1 - y % 1) * unit[1] < joint
    stones[near_x | near_y] = np.mean(color) * 0.55 + 20
    return np.asarray(stones, dtype=np.float32)


def stone(rng: Generator, size: Size, density: float) -> Texture:
    """Ashlar, with an inscription where there is room."""
    unit = rng.uniform(0.3, 0.5), rng.uniform(0.18, 0.3)
    canvas = _Canvas(_masonry(rng, size, density, unit, _pick(rng, STONE)), density)
    width, height = size
    if min(size) > 0.7:
        for line in range(int(min(4, height / 0.3))):
            color = _vary(rng, (70, 62, 50), 0.2)
            canvas.text(0.1 * width, 0.12 + 0.27 * line, 0.13, _word(rng, int(width / 0.17)), color)
    return canvas.finish(rng, 0.12)


def crate(rng: Generator, size: Size, density: float) -> Texture:
    """Planks of different breadth with knots and a stencilled mark."""
    width, height = size
    plain = np.zeros((max(2, round(height * density)), max(2, round(width * density)), 3))
    canvas, y = _Canvas(plain.astype(np.float32), density), 0.0
    while y < height:
        plank = rng.uniform(0.08, 0.17)
        canvas.box(0, y, width, plank - 0.012, _vary(rng, (170, 128, 80), 0.17))
        for _ in range(rng.integers(1, 4)):
            at = rng.uniform(0, width), y + rng.uniform(0.02, plank)
            canvas.blob(*at, (rng.uniform(0.01, 0.04), 0.012), 0, _vary(rng, (84, 54, 30), 0.2))
        y += plank
    canvas.text(0.1 * width, 0.3 * height, 0.22 * height, _word(rng, 4), (40, 34, 30))
    return canvas.finish(rng, 0.14)


def posters(rng: Generator, size: Size, density: float) -> Texture:
    """A hoarding with posters pasted over each other."""
    width, height = size
    canvas = _Canvas(_masonry(rng, size, density, (0.5, 0.4), (96, 110, 104)), density)
    for _ in range(int(9 * width * height)):
        w, h = rng.uniform(0.25, 0.6), rng.uniform(0.3, 0.7)
        x, y = rng.uniform(-0.1, width - 0.2), rng.uniform(-0.1, height - 0.2)
        canvas.box(x, y, w, h, _vary(rng, _pick(rng, SIGNS), 0.2))
        for _ in range(3):
            radii = rng.uniform(0.03, 0.14), rng.uniform(0.03, 0.14)
            at = x + rng.uniform(0.1, 0.9) * w, y + rng.uniform(0.3, 0.9) * h
            color = rng.uniform(20, 240, 3)
            canvas.blob(*at, radii, rng.uniform(0, 180), (color[0], color[1], color[2]))
        canvas.text(x + 0.03, y + 0.04, 0.09, _word(rng, int(w / 0.09)), _pick(rng, SIGNS))
    return canvas.finish(rng, 0.08)


def lantern(rng: Generator, size: Size, density: float) -> Texture:
    """Frosted glass in a frame; the whole of it shines."""
    canvas = _Canvas(_masonry(rng, size, density, (0.2, 0.2), (222, 216, 196)), density)
    canvas.shine(0, 0, *size, (255, 214, 150))
    return canvas.finish(rng, 0.04)


def paving(rng: Generator, size: Size, density: float) -> Texture:
    """Stone slabs with covers, puddle stains and litter, no two square metres alike."""
    canvas = _Canvas(_masonry(rng, size, density, (0.42, 0.3), (142, 138, 130)), density)
    for _ in range(int(size[0] * size[1])):
        at = rng.uniform(0, size[0]), rng.uniform(0, size[1])
        tone = rng.choice([50.0, 90.0, 205.0])
        radii = rng.uniform(0.02, 0.16), rng.uniform(0.02, 0.1)
        canvas.blob(*at, radii, rng.uniform(0, 180), _vary(rng, (tone, tone, tone), 0.15))
    for _ in range(int(size[0] * size[1] / 12)):
        x, y = rng.uniform(0, size[0]), rng.uniform(0, size[1])
        canvas.box(
            x, y, rng.uniform(0.3, 0.8), rng.uniform(0.3, 0.8), _vary(rng, (96, 94, 92), 0.2)
        )
        canvas.text(x + 0.05, y + 0.08, 0.12, _word(rng, 3), (190, 186, 176))
    return canvas.finish(rng, 0.14)


def facade(rng: Generator, size: Size, density: float) -> Texture:
    """Brick or plaster, a shop on the ground floor, windows of all kinds above it."""
    width, height = size
    if rng.random() < 0.5:
        wall = _masonry(rng, size, density, (0.24, 0.085), _pick(rng, BRICK))
    else:  # plaster: the stones hardly show
        color = _pick(rng, PLASTER)
        wall = color + 0.2 * (_masonry(rng, size, density, (0.6, 0.4), color) - color)
    canvas = _Canvas(np.asarray(wall, dtype=np.float32), density)
    storey, top = rng.uniform(1.75, 2.1), 0.15
    while top + storey < height - 2.4:
        x = rng.uniform(0.25, 0.5)
        while x < width - 0.9:
            breadth = rng.uniform(0.6, 1.1)
            if x + breadth < width - 0.2:
                lift = rng.uniform(-0.12, 0.12)
                _window(
                    rng, canvas, x, top + 0.35 + lift, breadth, storey * rng.uniform(0.52, 0.64)
                )
            x += breadth + rng.uniform(0.35, 0.8)
        canvas.box(0, top + storey, width, 0.1, _vary(rng, _pick(rng, STONE), 0.1))
        top += storey
    _shop(rng, canvas, size)
    return canvas.finish(rng, 0.1)


def _window(
    rng: Generator, canvas: _Canvas, x: float, y: float, width: float, height: float
) -> None:
    """Surround, sill, panes of different reflections, at times a curtain or shutters."""
    canvas.box(x - 0.09, y - 0.12, width + 0.18, height + 0.2, _vary(rng, _pick(rng, STONE), 0.15))
    canvas.box(x - 0.14, y + height, width + 0.28, 0.09, _vary(rng, (205, 200, 190), 0.1))
    canvas.box(x, y, width, height, _vary(rng, _pick(rng, ((236, 232, 224), (92, 62, 44))), 0.1))
    columns, rows = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    w, h = (width - 0.05) / columns, (height - 0.05) / rows
    for column in range(columns):
        for row in range(rows):
            pane = x + 0.05 + column * w, y + 0.05 + row * h, w - 0.05, h - 0.05
            canvas.box(*pane, _vary(rng, (66, 78, 94), 0.45))
    if rng.random() < 0.5:
        canvas.box(x + 0.05, y + 0.05, width * rng.uniform(0.2, 0.5), height * 0.8, (202, 190, 168))
    if rng.random() < 0.5:
        light = ((255, 206, 120), (255, 232, 180), (190, 214, 255))
        canvas.shine(x, y, width, height, _vary(rng, _pick(rng, light), 0.15))
    if rng.random() < 0.4:
        color, slats = _vary(rng, _pick(rng, SIGNS[:3]), 0.2), int(height / 0.1)
        for k in range(slats):
            for left in (x - 0.34, x + width + 0.1):
                canvas.box(left, y + k * height / slats, 0.24, 0.065, _vary(rng, color, 0.12))


def _shop(rng: Generator, canvas: _Canvas, size: Size) -> None:
    """Door, display and a sign with a name along the ground floor."""
    width, height = size
    door = rng.uniform(0.2, max(0.25, width - 1.2))
    canvas.box(door - 0.1, height - 2.2, 1.1, 2.2, _vary(rng, _pick(rng, STONE), 0.1))
    canvas.box(door, height - 2.1, 0.9, 2.1, _vary(rng, _pick(rng, SIGNS), 0.2))
    canvas.box(door + 0.12, height - 1.9, 0.66, 0.6, _vary(rng, (70, 84, 96), 0.3))
    canvas.blob(door + 0.8, height - 1.0, (0.04, 0.04), 0, (214, 190, 110))
    left, right = (door + 1.2, width - 0.3) if door < width / 2 else (0.3, door - 0.3)
    if right - left > 0.8:
        _window(rng, canvas, left, height - 1.75, right - left, 1.15)
        canvas.box(left, height - 2.3, right - left, 0.36, _vary(rng, _pick(rng, SIGNS[:3]), 0.2))
        name = _word(rng, int((right - left) / 0.24))
        canvas.text(left + 0.08, height - 2.22, 0.2, name, (240, 230, 200))
        canvas.shine(left, height - 2.3, right - left, 0.36, (255, 190, 90))
