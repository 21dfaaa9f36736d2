"""Which of a query's candidate poses, of one method or several, is its pose."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

ChoiceRule = Literal["sum_by_image", "union"]
"""`sum_by_image`: as the release of D2-Net (inloc/merge_files.m): images of the map are ranked by
the sum of the similarities of all candidates that came from them, whatever the method; the most
similar candidate from the first image is the pose. `union`: the most similar candidate of all."""

LEAST_DISTANCE = 1e-6
"""Views nearer than this count as equal: a similarity is the inverse of a distance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPose:
    """What a choice is made by.

    image: the image of the map that the pose came from, or that most of its inliers came from.
    distance: of Dense PV, 0 for equal views, infinite where it could not judge; None: not asked.
    inliers: of the pose.
    method, index: which method of the row, and which of its candidates, best by inliers first.
    """

    image: str
    distance: float | None
    inliers: int
    method: int
    index: int

    @property
    def similarity(self) -> float:
        """Inverse of the distance, as InLoc's scores; 0 where there is none."""
        distance = math.inf if self.distance is None else self.distance
        return 1.0 / max(distance, LEAST_DISTANCE)


def choose(candidates: Sequence[ScoredPose], rule: ChoiceRule) -> ScoredPose | None:
    """The pose of a query; None without candidates.

    Where no candidate could be judged, and among equals, most inliers decide, then the order of
    methods and candidates.
    """
    if rule == "union":
        return min(candidates, key=_rank, default=None)
    total: dict[str, float] = defaultdict(float)
    for candidate in candidates:
        total[candidate.image] += candidate.similarity
    return min(candidates, key=lambda c: (-total[c.image], *_rank(c)), default=None)


def _rank(candidate: ScoredPose) -> tuple[float, int, int, int]:
    return -candidate.similarity, -candidate.inliers, candidate.method, candidate.index
