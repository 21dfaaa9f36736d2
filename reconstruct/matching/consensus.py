"""Which matches agree with the matches around them: a filter on positions alone.

Around a right match a surface maps nearly affinely, so the right matches nearby move along with
it; wrong ones scatter. (The idea of Cavalli et al., "AdaLAM", ECCV 2020: local consensus around
seeds. Here every match is a seed, and one neighbour proposes a similarity, since D2-Net's
keypoints have no orientation that could.) With complex numbers for positions:

    dx_k, dy_k    from a match to its k-th neighbour, in image 0 and in image 1
    s_j           dy_j / dx_j: the rotation and scale that neighbour j proposes
    n_j           how many neighbours k other than j agree: |dy_k - s_j dx_k| <= t_jk
    lambda_j      how many would agree by chance: the sum over k of pi t_jk^2 / area of image 1

How many neighbours are enough is decided a contrario (Desolneux, Moisan and Morel, IJCV 2000): a
match stays if one of its K hypotheses has so many neighbours behind it that chance gives as many to
fewer than ``chance`` of all wrong matches. n log(n / lambda) - n + lambda bounds minus the
logarithm of the probability of n or more where lambda are expected (Chernoff, for a Poisson
variable).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.spatial import cKDTree

from reconstruct.config import Section
from reconstruct.geometry import Float64

MAX_SCALE: Final = 4.0
"""One image does not show a surface larger than the other by more than this, in extents."""
MIN_SUPPORT: Final = 2
"""Number of neighbours that have to agree with a hypothesis, beside the one that proposes it."""
ROUNDS: Final = 2
"""The second round looks among the matches that the first one left."""
CHUNK: Final = 32
"""Matches that are looked at together."""

Complex = NDArray[np.complex128]


class ConsensusConfig(Section):
    """How far matches may differ and still agree. Lengths are relative to the extent of an image,
    the square root of the area that holds its matches: 800 pixels in a photo of 1024 x 680."""

    neighbors: int = Field(64, ge=3)
    """Number of nearest matches that each match is compared with, in the image whose matches fill
    the smaller area: image 0 here."""
    tolerance: float = Field(0.005, gt=0)
    """How far, in image 1, a neighbour may be from where a hypothesis puts it..."""
    stretch: float = Field(0.15, ge=0)
    """...plus this share of its distance from the match: surfaces are curved and slanted..."""
    max_tolerance: float = Field(0.02, gt=0)
    """...but no more than this."""
    chance: float = Field(0.01, gt=0, lt=1)
    """Share of the wrong matches that may stay because others happen to agree with them."""

    def identity(self) -> dict[str, Any]:
        """The settings, and that the order of the images does not count: once it did."""
        return {**super().identity(), "order": "any"}


def consistent(
    first: NDArray[Any], second: NDArray[Any], config: ConsensusConfig | None = None
) -> NDArray[np.bool_]:
    """Which matches move along with matches around them.

    Args:
        first: (M, 2) positions in image 0, in any unit.
        second: (M, 2) the matching positions in image 1, in any unit.
        config: None: the default settings.

    Returns:
        (M,) bool, the same whichever image comes first and however the matches are sorted. Fewer
        than four matches never agree.
    """
    config = config or ConsensusConfig.model_validate({})
    x, y = sorted((np.asarray(first), np.asarray(second)), key=_area)
    order = np.lexsort([*y.T, *x.T])  # settles ties of distance
    mask = np.zeros(len(order), np.bool_)
    mask[order] = _agreeing(_normalised(x[order]), _normalised(y[order]), config)
    return mask


def _agreeing(x: Complex, y: Complex, config: ConsensusConfig) -> NDArray[np.bool_]:
    """(M,) which matches are left when neighbours are looked for around ``x``."""
    kept = np.arange(len(x))
    for _ in range(ROUNDS):
        if len(kept) < MIN_SUPPORT + 2:
            return np.zeros(len(x), np.bool_)
        evidence = _evidence(x[kept], y[kept], config)
        hypotheses = min(config.neighbors, len(kept) - 1)
        kept = kept[evidence > np.log(hypotheses / config.chance)]
    mask = np.zeros(len(x), np.bool_)
    mask[kept] = True
    return mask


def _normalised(points: NDArray[Any]) -> Complex:
    """(M,) positions in extents of their image: the rectangle that holds them has area 1."""
    z = np.asarray(points, np.float64) @ np.array([1.0, 1.0j])
    area = _area(points)
    return np.asarray(z / np.sqrt(area) if area > 0 else z)


def extent(points: NDArray[Any]) -> float:
    """The side of a square as large as the smallest upright rectangle that holds (M, 2) positions;
    0 without any."""
    return float(np.sqrt(_area(points)))


def _area(points: NDArray[Any]) -> float:
    """The area of the smallest upright rectangle that holds (M, 2) positions; 0 without any."""
    return float(np.prod(np.ptp(np.asarray(points, np.float64), axis=0))) if len(points) else 0.0


def _evidence(x: Complex, y: Complex, config: ConsensusConfig) -> Float64:
    """(M,) evidence (see above, a logarithm) for the best hypothesis about each match."""
    points = np.column_stack([x.real, x.imag])
    _, near = cKDTree(points).query(points, min(config.neighbors, len(x) - 1) + 1)
    near = near[:, 1:]  # the match itself comes first, or another at the very same place
    chunks = np.split(np.arange(len(x)), range(CHUNK, len(x), CHUNK))
    parts = [
        _best_hypothesis(x[near[rows]] - x[rows, None], y[near[rows]] - y[rows, None], config)
        for rows in chunks
    ]
    return np.concatenate(parts)


def _best_hypothesis(dx: Complex, dy: Complex, config: ConsensusConfig) -> Float64:
    """(M,) largest evidence among the hypotheses of (M, K) neighbours."""
    distance = np.abs(dx)
    s = np.divide(dy, dx, out=np.zeros_like(dy), where=distance > 0)
    possible = (np.abs(s) >= 1 / MAX_SCALE) & (np.abs(s) <= MAX_SCALE)
    s[~possible] = 0
    tolerance = config.tolerance + config.stretch * np.abs(s)[:, :, None] * distance[:, None, :]
    tolerance = np.minimum(tolerance, config.max_tolerance)
    agree = np.abs(dy[:, None, :] - s[:, :, None] * dx[:, None, :]) <= tolerance
    agree &= possible[:, :, None] & possible[:, None, :]
    support = agree.sum(2) - 1.0  # without the neighbour that proposes
    chance = np.pi * np.square(tolerance).sum(2)  # image 1 has area 1
    many = (support >= MIN_SUPPORT) & (support > chance)
    ratio = np.divide(support, chance, out=np.ones_like(chance), where=many)
    evidence = np.where(many, support * np.log(ratio) - support + chance, 0.0)
    return np.asarray(evidence.max(1))
