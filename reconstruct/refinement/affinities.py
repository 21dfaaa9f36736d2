"""Local affinities of matches, estimated from the positions of neighbouring matches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from reconstruct.geometry import Float64

ROUNDS: Final = 8
RESIDUAL_PX: Final = 3.0
"""Scale of the Cauchy weights of neighbours: D2-Net's matches are off by pixels, and some are
wrong."""
SIMILARITY_PRIOR_PX2: Final = 44.0
"""Weight of the similarity fitted to the same neighbours: few or collinear neighbours say little
about shear."""
MIN_STRETCH, MAX_STRETCH = 0.15, 7.0
"""Range of singular values of two views of one surface; outside of it the identity is used."""


def local_affinities(points0: Float64, points1: Float64, neighbors: int) -> Float64:
    """Affinity ``1 from 0`` at each match, in pixels.

    Weighted least squares over the nearest matches in image 0 with Cauchy weights, pulled towards
    the similarity that fits the same neighbours. With fewer than 4 matches it is the identity.

    Args:
        points0: (M, 2) positions of the matches in image 0.
        points1: (M, 2) positions of the matches in image 1.
        neighbors: Number of nearest matches to fit.

    Returns:
        (M, 2, 2) affinities.
    """
    count = len(points0)
    if count < 4:
        return np.tile(np.eye(2), (count, 1, 1))
    _, near = cKDTree(points0).query(points0, min(neighbors, count - 1) + 1)
    x, y = points0[near], points1[near]
    affinity, _, _ = _robust_fit(x, y)
    stretch = np.linalg.svd(affinity, compute_uv=False)
    wrong = np.linalg.det(affinity) <= 0
    wrong |= (stretch[:, 1] < MIN_STRETCH) | (stretch[:, 0] > MAX_STRETCH)
    affinity[wrong] = np.eye(2)
    return affinity


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Predicted:
    """Where the matches around N points of image 0 put them in image 1.

    Attributes:
        index: (N,) which of the points that were asked for.
        positions: (N, 2) in image 1.
        deviation: (N,) root of the weighted mean square by which these matches miss their own.
    """

    index: NDArray[np.int64]
    positions: Float64
    deviation: Float64


def predicted_positions(
    points: Float64, points0: Float64, points1: Float64, neighbors: int, reach: float
) -> Predicted:
    """Where points of image 0 lie in image 1, by the affinity of the nearest matches (fitted as in
    `local_affinities`, whatever its stretch).

    Args:
        points: (N, 2) in image 0, in pixels.
        points0: (M, 2) positions of the matches in image 0, one at least.
        points1: (M, 2) positions of the matches in image 1.
        neighbors: Number of nearest matches.
        reach: Points of which the farthest of these is farther away are left out.
    """
    nearest = np.arange(1, min(neighbors, len(points0)) + 1)
    distance, near = cKDTree(points0).query(points, nearest)
    index = np.flatnonzero(distance[:, -1] <= reach)
    x, y = points0[near[index]], points1[near[index]]
    affinity, residual, weights = _robust_fit(x, y)
    share = weights / weights.sum(1, keepdims=True)
    middle0, middle1 = (np.einsum("nk,nki->ni", share, side) for side in (x, y))
    return Predicted(
        index=index,
        positions=middle1 + np.einsum("nij,nj->ni", affinity, points[index] - middle0),
        deviation=np.sqrt((share * residual**2).sum(1)),
    )


def _robust_fit(x: Float64, y: Float64) -> tuple[Float64, Float64, Float64]:
    """(M, 2, 2) affinities of (M, K, 2) neighbours under Cauchy weights, their (M, K) residuals in
    pixels, and the weights that follow from these."""
    weights = np.ones(x.shape[:2])
    for _ in range(ROUNDS):
        affinity, residual = _fit(x, y, weights)
        weights = 1.0 / (1.0 + (residual / RESIDUAL_PX) ** 2)
    return affinity, residual, weights


def _fit(x: Float64, y: Float64, weights: Float64) -> tuple[Float64, Float64]:
    """(M, 2, 2) affinities of (M, K, 2) neighbours, and their (M, K) residuals in pixels."""
    share = (weights / weights.sum(1, keepdims=True))[..., None]
    x = x - (share * x).sum(1, keepdims=True)
    y = y - (share * y).sum(1, keepdims=True)
    similarity = _similarity(x, y, weights)
    eye = SIMILARITY_PRIOR_PX2 * np.eye(2)
    covariance = np.einsum("mk,mki,mkj->mij", weights, x, x) + eye
    cross = np.einsum("mk,mki,mkj->mij", weights, y, x) + SIMILARITY_PRIOR_PX2 * similarity
    affinity = cross @ np.linalg.inv(covariance)
    residual = np.linalg.norm(y - np.einsum("mij,mkj->mki", affinity, x), axis=-1)
    return affinity, residual


def _similarity(x: Float64, y: Float64, weights: Float64) -> Float64:
    """(M, 2, 2) scaled rotations y ~ S x: one complex number each."""
    zx, zy = x[..., 0] + 1j * x[..., 1], y[..., 0] + 1j * y[..., 1]
    power = np.maximum((weights * np.abs(zx) ** 2).sum(1), 1e-9)
    s = (weights * zx.conj() * zy).sum(1) / power
    matrices = [np.stack([s.real, -s.imag], -1), np.stack([s.imag, s.real], -1)]
    return np.stack(matrices, 1)
