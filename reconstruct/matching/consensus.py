"""Which matches agree with the matches around them: a filter that needs nothing but positions.

Around a right match a surface maps nearly affinely, so the right matches nearby move along with
it; wrong ones scatter. (The idea of Cavalli et al., "AdaLAM", ECCV 2020: local consensus around
seeds. Here every match is a seed, and one neighbour proposes a similarity, since D2-Net's
keypoints have no orientation that could.) With complex numbers for positions:

    dx_k, dy_k    from a match to its k-th neighbour, in image 0 and in image 1
    s_j           dy_j / dx_j: the rotation and scale that neighbour j proposes
    n_j           how many neighbours k other than j agree: |dy_k - s_j dx_k| <= t_jk
    lambda_j      how many would agree by chance: the sum over k of pi t_jk^2 / area of image 1

How many is many is decided a contrario (Desolneux, Moisan and Morel, IJCV 2000): a match stays if
one of its hypotheses has so many neighbours behind it that among all hypotheses of the pair less
than one such is expected by chance. n log(n / lambda) - n + lambda bounds minus the logarithm of
the probability of n or more where lambda are expected (Chernoff, for a Poisson variable).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from reconstruct.geometry import Float64

MAX_SCALE: Final = 4.0
"""One image does not show a surface larger than the other by more than this."""
MIN_SUPPORT: Final = 2
"""Neighbours that have to agree with a hypothesis, beside the one that proposes it."""
ROUNDS: Final = 2
"""The second round looks among the matches that the first one left."""
CHUNK: Final = 128
"""Matches that are looked at together."""

Complex = NDArray[np.complex128]


def consistent(
    first: NDArray[Any],
    second: NDArray[Any],
    *,
    neighbors: int = 64,
    tolerance_px: float = 4.0,
    stretch: float = 0.15,
    max_tolerance_px: float = 15.0,
) -> NDArray[np.bool_]:
    """Which matches move along with matches around them.

    Args:
        first: (M, 2) positions in image 0, in pixels.
        second: (M, 2) the matching positions in image 1.
        neighbors: nearest matches in image 0 that are asked about each match.
        tolerance_px: how far, in image 1, a neighbour may be from where a hypothesis puts it...
        stretch: ...plus this share of its distance from the match: surfaces are curved and slanted.
        max_tolerance_px: ...but no more than this.

    Returns:
        (M,) bool. Fewer than four matches never agree.
    """
    x, y = (np.asarray(points, np.float64) @ [1.0, 1.0j] for points in (first, second))
    kept = np.arange(len(x))
    limits = tolerance_px, stretch, max_tolerance_px
    for _ in range(ROUNDS):
        if len(kept) < MIN_SUPPORT + 2:
            return np.zeros(len(x), np.bool_)
        near = _nearest(x[kept], neighbors)
        needed = np.log(len(x) * near.shape[1])
        area = _area(y)
        evidence = np.concatenate(
            [
                _evidence(
                    *(z[kept[near[rows]]] - z[kept[rows], None] for z in (x, y)), area, limits
                )
                for rows in np.split(np.arange(len(kept)), range(CHUNK, len(kept), CHUNK))
            ]
        )
        kept = kept[evidence > needed]
    mask = np.zeros(len(x), np.bool_)
    mask[kept] = True
    return mask


def _nearest(x: Complex, neighbors: int) -> NDArray[np.intp]:
    """(M, K) indices of each position's nearest others."""
    points = np.column_stack([x.real, x.imag])
    _, near = cKDTree(points).query(points, min(neighbors, len(x) - 1) + 1)
    # The position itself comes first, or another at the very same place: that one says nothing.
    return np.asarray(near[:, 1:], np.intp)


def _area(y: Complex) -> float:
    """Of the part of image 1 that holds matches, in square pixels."""
    return max(1.0, float(np.ptp(y.real) * np.ptp(y.imag)))


def _evidence(dx: Complex, dy: Complex, area: float, limits: tuple[float, float, float]) -> Float64:
    """(M,) evidence (see above, a logarithm) for the best hypothesis of (M, K) neighbours."""
    tolerance_px, stretch, largest = limits
    distance = np.abs(dx)
    s = np.divide(dy, dx, out=np.zeros_like(dy), where=distance > 0)
    possible = (np.abs(s) >= 1 / MAX_SCALE) & (np.abs(s) <= MAX_SCALE)
    s[~possible] = 0
    tolerance = tolerance_px + stretch * np.abs(s)[:, :, None] * distance[:, None, :]
    tolerance = np.minimum(tolerance, largest)
    agree = np.abs(dy[:, None, :] - s[:, :, None] * dx[:, None, :]) <= tolerance
    agree &= possible[:, :, None] & possible[:, None, :]
    support = agree.sum(2) - 1.0  # without the neighbour that proposes
    chance = np.minimum(np.pi * tolerance**2 / area, 1.0).sum(2)
    many = (support >= MIN_SUPPORT) & (support > chance)
    ratio = np.divide(support, chance, out=np.ones_like(chance), where=many)
    evidence = np.where(many, support * np.log(ratio) - support + chance, 0.0)
    return np.asarray(evidence.max(1))
