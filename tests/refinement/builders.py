"""Photos of a pattern under known affinities, and alignments as if measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reconstruct.refinement import PairAlignment
from reconstruct.types import ImageArray

SIZE = 256


def texture(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """A smooth pattern, 0..1, at (..., 2) positions: waves of 5 to 20 pixels in all directions."""
    rng = np.random.default_rng(7)
    value = np.zeros(points.shape[:-1])
    for _ in range(40):
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(5, 20)
        wave = 2 * np.pi / length * np.array([np.cos(angle), np.sin(angle)])
        value += np.cos(points @ wave + rng.uniform(0, 2 * np.pi))
    return np.asarray(0.5 + value / 25)


def photo(
    affinity: NDArray[np.float64], shift: NDArray[np.float64], gain: float = 1.0, bias: float = 0.0
) -> ImageArray:
    """The photo in which texture point x lies at ``affinity x + shift`` (COLMAP pixels)."""
    x, y = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
    source = (np.stack([x, y], -1) - shift) @ np.linalg.inv(affinity).T
    grey = np.clip(bias + gain * 255 * texture(source), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def grid(margin: float) -> NDArray[np.float64]:
    steps = np.linspace(margin, SIZE - margin, 7)
    return np.stack(np.meshgrid(steps, steps), -1).reshape(-1, 2)


def around_center(affinity: NDArray[np.float64]) -> NDArray[np.float64]:
    """The shift that keeps the photo's centre where it is."""
    center = np.full(2, SIZE / 2)
    return np.asarray(center - affinity @ center)


AFFINITIES = {
    "shift": np.eye(2),
    "rotation": np.array([[0.97, -0.24], [0.24, 0.97]]),
    "shear": np.array([[1.1, 0.2], [-0.1, 0.85]]),
    "closer": np.array([[1.45, 0.1], [-0.1, 1.4]]),
    "farther": np.array([[0.65, 0.05], [-0.05, 0.7]]),
}


def alignment(
    displacement: list[list[float]],
    affinity: NDArray[np.float64] | None = None,
    aligned: list[bool] | None = None,
    sigma_px: float = 0.01,
) -> PairAlignment:
    count = len(displacement)
    one = np.eye(2) if affinity is None else affinity
    return PairAlignment(
        displacement=np.array(displacement, np.float32).reshape(-1, 2),
        affinity=np.tile(one, (count, 1, 1)).astype(np.float32),
        covariance=np.tile(sigma_px**2 * np.eye(2), (count, 1, 1)).astype(np.float32),
        correlation=np.full(count, 0.95, np.float32),
        aligned=np.array([True] * count if aligned is None else aligned, np.bool_),
    )


def index(*rows: tuple[int, int]) -> NDArray[np.uint32]:
    return np.array(rows, np.uint32).reshape(-1, 2)
