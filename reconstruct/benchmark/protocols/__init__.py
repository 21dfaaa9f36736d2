"""How a benchmark turns matches into figures: the parts that all of them share.

A protocol scores one pair at a time (`PairScore`) and names groups of pairs; `summarise` makes a
`Result` of the scores of a method. Positions are COLMAP pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

from reconstruct.datasets import Dataset
from reconstruct.evaluation.poses import area_under_recall
from reconstruct.geometry import Float64
from reconstruct.types import ImagePair


@dataclass(frozen=True, slots=True, kw_only=True)
class PairScore:
    """One pair of images under one method.

    matches: how many. shares: one for each of the protocol's thresholds, 0 to 1.
    error_px: of the geometry estimated from the matches; infinite if there is none.
    """

    matches: int
    shares: tuple[float, ...]
    error_px: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A method on a group of pairs.

    matches: mean number. shares: mean over the pairs, by threshold in px. auc: area under the
    recall of the geometry's error, by threshold in px. Shares and areas are 0 to 1.
    """

    pairs: int
    matches: float
    shares: dict[str, float]
    auc: dict[str, float]


@dataclass(frozen=True, slots=True)
class Reported:
    """A row of the literature: mean numbers of features an image and of matches a pair."""

    method: str
    features: float
    matches: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


class Benchmark(Protocol):
    """Images, pairs, ground truth, and how they are scored.

    share: what `PairScore.shares` are shares of. reported: rows of the literature; source: which.
    """

    @property
    def name(self) -> str: ...

    @property
    def share(self) -> str: ...

    @property
    def thresholds_px(self) -> tuple[float, ...]: ...

    @property
    def auc_thresholds_px(self) -> tuple[float, ...]: ...

    @property
    def reported(self) -> tuple[Reported, ...]: ...

    @property
    def source(self) -> str: ...

    @property
    def dataset(self) -> Dataset: ...

    @property
    def groups(self) -> dict[str, tuple[ImagePair, ...]]:
        """Name -> pairs, sorted; the first group holds all pairs."""

    def identity(self) -> list[Any]:
        """JSON-able: the ground truth and all settings of the scores."""

    def check(self) -> dict[str, Any]:
        """What a look at images and ground truth says, JSON-able. Raises DataError."""

    def describe(self) -> dict[str, Any]:
        """JSON-able: what part of the public data this is."""

    def score(
        self, pair: ImagePair, first: Float64, second: Float64, size: tuple[int, int]
    ) -> PairScore:
        """The score of matched (M, 2) positions; ``size``: (width, height) of the first image."""


def summarise(
    scores: Mapping[ImagePair, PairScore],
    pairs: Sequence[ImagePair],
    thresholds_px: Sequence[float],
    auc_thresholds_px: Sequence[float],
) -> Result:
    """The mean over those of ``pairs`` that have a score; every pair counts the same."""
    found = [scores[pair] for pair in pairs if pair in scores]
    shares = np.array([score.shares for score in found]).reshape(-1, len(thresholds_px))
    areas = area_under_recall([score.error_px for score in found], auc_thresholds_px)
    return Result(
        pairs=len(found),
        matches=float(np.mean([score.matches for score in found])) if found else 0.0,
        shares=_by_threshold(thresholds_px, shares.mean(0) if found else [0.0] * shares.shape[1]),
        auc=_by_threshold(auc_thresholds_px, areas),
    )


def _by_threshold(thresholds: Sequence[float], values: Any) -> dict[str, float]:
    return {f"{t:g}": round(float(v), 6) for t, v in zip(thresholds, values, strict=True)}
