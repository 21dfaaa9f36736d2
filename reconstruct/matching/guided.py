"""More matches, where those that agree with each other say where to look.

A keypoint that has no match is looked for near where the matches around it put it. There only a few
keypoints come into question, so descriptors that differ too much to be the nearest among thousands
still tell. How much they have to agree is decided a contrario, as in `consensus`: if the n
keypoints near the place had nothing to do with it, the best of them would be among the share p of
all descriptors that are most similar to its own with a probability of n p or less. A match is taken
if this is below ``chance``, seen from both images, and each is the other's best.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.spatial import cKDTree

from reconstruct.config import Section
from reconstruct.geometry import Float64
from reconstruct.lazy import lazily
from reconstruct.matching.consensus import ConsensusConfig, extent
from reconstruct.refinement.affinities import predicted_positions
from reconstruct.types import Matches

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazily("torch")

PIXELS: Final = 800.0
"""Extent of an image, in the pixels for which positions are predicted."""
MIN_MATCHES: Final = 12
"""Fewer matches predict nothing."""
SAMPLE: Final = 512
"""Descriptors of an image that stand for all of them."""


class GuidedConfig(Section):
    """How matches are looked for near where the others put them. Lengths are relative to the extent
    of an image, as those of the filter."""

    neighbors: int = Field(12, ge=4)
    """Number of nearest matches that predict where a keypoint lies in the other image."""
    reach: float = Field(0.2, gt=0)
    """The farthest of them is no farther than this."""
    deviations: float = Field(2.0, gt=0)
    """A keypoint may lie so many times as far from there as they deviate in the mean (root of the
    mean square), at least ``filter.tolerance``, at most ``filter.max_tolerance``."""
    chance: float = Field(0.02, gt=0, lt=1)
    """Probability with which descriptors of other points agree as well."""


def guided(
    points: tuple[NDArray[np.float32], NDArray[np.float32]],
    vectors: tuple[Tensor, Tensor],
    free: tuple[NDArray[np.int64], NDArray[np.int64]],
    known: tuple[NDArray[np.float32], NDArray[np.float32]],
    config: GuidedConfig,
    limits: ConsensusConfig,
) -> Matches:
    """Matches among keypoints that have none yet.

    Args:
        points: (N, 2) keypoints of each of the two images, in any unit.
        vectors: (N, D) their unit descriptors.
        free: which of them have no match.
        known: (K, 2) positions of the matches that there are, in each image.
        config: settings.
        limits: smallest and largest distance from the predicted place.

    Returns:
        Rows of ``points``; a keypoint may be in several if its best ones are equally similar.
    """
    if len(known[0]) < MIN_MATCHES or not len(free[0]) or not len(free[1]):
        return Matches.empty()
    scales = [PIXELS / max(extent(positions), 1e-9) for positions in known]
    first, second = (points[i][free[i]].astype(np.float64) * scales[i] for i in (0, 1))
    anchors = [known[i].astype(np.float64) * scales[i] for i in (0, 1)]
    reach = config.reach * PIXELS
    predicted = predicted_positions(first, anchors[0], anchors[1], config.neighbors, reach)
    radius = np.clip(
        config.deviations * predicted.deviation,
        limits.tolerance * PIXELS,
        limits.max_tolerance * PIXELS,
    )
    rows, columns = _within(predicted.positions, radius, second)
    if not len(rows):
        return Matches.empty()
    pair = free[0][predicted.index[rows]], free[1][columns]
    score = _products(vectors, pair)
    sides = zip(vectors, vectors[::-1], pair, strict=True)
    chances = [_chance(own, others, of, score) for own, others, of in sides]
    taken = np.maximum(*chances) <= config.chance
    taken &= _is_best(pair[0], score) & _is_best(pair[1], score)
    return Matches(indices=np.column_stack(pair)[taken].astype(np.uint32), scores=score[taken])


def _within(
    places: Float64, radius: Float64, points: Float64
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of ``places`` and of ``points`` that lie within the radius of each place."""
    near = cKDTree(points).query_ball_point(places, radius, return_sorted=True)
    counts = np.array([len(found) for found in near], np.int64)
    columns = np.fromiter((j for found in near for j in found), np.int64, int(counts.sum()))
    return np.repeat(np.arange(len(counts)), counts), columns


def _products(
    vectors: tuple[Tensor, Tensor], pair: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> NDArray[np.float32]:
    first, second = (vectors[i][torch.from_numpy(pair[i]).to(vectors[i].device)] for i in (0, 1))
    score: NDArray[np.float32] = torch.linalg.vecdot(first, second).cpu().numpy()
    return score


def _chance(
    own: Tensor, others: Tensor, rows: NDArray[np.int64], score: NDArray[np.float32]
) -> Float64:
    """(P,) how probable it is that the best of as many of ``others`` as ``rows`` has of a row is as
    similar to it, if they have nothing to do with it."""
    sample = others[torch.linspace(0, len(others) - 1, min(SAMPLE, len(others))).long()]
    used, place, count = np.unique(rows, return_inverse=True, return_counts=True)
    table = own[torch.from_numpy(used).to(own.device)] @ sample.T
    at = torch.from_numpy(place).to(own.device)
    scores = torch.from_numpy(score).to(own.device)
    above = (table[at] >= scores[:, None]).sum(1)
    share = (above.cpu().numpy() + 1.0) / (len(sample) + 1.0)
    return np.asarray(count[place] * share)


def _is_best(rows: NDArray[np.int64], score: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(P,) whether no other entry of the same row has a larger score."""
    largest = np.full(int(rows.max()) + 1, -np.inf, np.float32)
    np.maximum.at(largest, rows, score)
    return np.asarray(score >= largest[rows])
