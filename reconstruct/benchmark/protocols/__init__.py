"""Scores of a benchmark: the parts that all protocols have in common.

A protocol scores one pair at a time (`PairScore`) and names groups of pairs; `summarise` combines
the scores of a method into a `MethodScores`. Positions are COLMAP pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

import numpy as np

from reconstruct.datasets import Dataset
from reconstruct.evaluation.poses import area_under_recall
from reconstruct.geometry import Float64
from reconstruct.types import ImagePair

ENOUGH_CORRECT: Final = 15
"""A pair with so many correct matches counts as matched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairScore:
    """Scores of one pair of images under one method.

    Attributes:
        matches: Number of matches.
        shares: One for each threshold of the protocol, 0 to 1.
        error_px: Of the geometry estimated from the matches; infinite without an estimate.
    """

    matches: int
    shares: tuple[float, ...]
    error_px: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodScores:
    """Scores of a method on a group of pairs. Shares and areas are 0 to 1.

    Attributes:
        matches: Mean number per pair.
        shares: Threshold in px -> mean over the pairs.
        auc: Threshold in px -> area under the recall curve of the geometry's error.
        correct: Mean number of correct matches per pair; None if `Benchmark.correct_px` is.
        matched: Share of pairs with `ENOUGH_CORRECT` correct matches; None likewise.
    """

    pairs: int
    matches: float
    shares: dict[str, float]
    auc: dict[str, float]
    correct: float | None = None
    matched: float | None = None


@dataclass(frozen=True, slots=True)
class Reported:
    """Figures from the literature: mean numbers of features per image and matches per pair."""

    method: str
    features: float
    matches: float

    def as_dict(self) -> dict[str, Any]:
        """The figures as JSON types."""
        return asdict(self)


class Benchmark(Protocol):
    """Images, pairs, ground truth, and how they are scored."""

    @property
    def name(self) -> str:
        """Name of the protocol."""

    @property
    def share(self) -> str:
        """What `PairScore.shares` are shares of."""

    @property
    def thresholds_px(self) -> tuple[float, ...]:
        """Thresholds of the shares, ascending."""

    @property
    def auc_thresholds_px(self) -> tuple[float, ...]:
        """Thresholds of the areas under the recall curve, ascending."""

    @property
    def correct_px(self) -> float | None:
        """The one of ``thresholds_px`` within which a match counts as correct; None if the shares
        are not those of matches, or correct ones are not to be counted."""

    @property
    def reported(self) -> tuple[Reported, ...]:
        """Figures from the literature to compare with."""

    @property
    def source(self) -> str:
        """The publication that they are taken from."""

    @property
    def dataset(self) -> Dataset:
        """The images."""

    @property
    def groups(self) -> dict[str, tuple[ImagePair, ...]]:
        """Name -> pairs, sorted; the first group holds all pairs."""

    def identity(self) -> list[Any]:
        """The ground truth and all settings of the scores, as JSON types."""

    def check(self) -> dict[str, Any]:
        """Check images and ground truth; returns figures as JSON types. Raises DataError."""

    def describe(self) -> dict[str, Any]:
        """Which part of the public data is present, as JSON types."""

    def score(
        self, pair: ImagePair, first: Float64, second: Float64, size: tuple[int, int]
    ) -> PairScore:
        """Score the matches of a pair.

        Args:
            pair: The pair.
            first: (M, 2) positions in the first image.
            second: (M, 2) matching positions in the second image.
            size: (width, height) of the first image.
        """


def summarise(
    scores: Mapping[ImagePair, PairScore],
    pairs: Sequence[ImagePair],
    thresholds_px: Sequence[float],
    auc_thresholds_px: Sequence[float],
    correct_px: float | None = None,
) -> MethodScores:
    """Means over the pairs of a group; every pair has the same weight.

    Args:
        scores: Pair -> its scores.
        pairs: The group; pairs without scores are left out.
        thresholds_px: Thresholds of the shares.
        auc_thresholds_px: Thresholds of the areas under the recall curve.
        correct_px: Threshold within which a match counts as correct; None: they are not counted.
    """
    found = [scores[pair] for pair in pairs if pair in scores]
    shares = np.array([score.shares for score in found]).reshape(-1, len(thresholds_px))
    areas = area_under_recall([score.error_px for score in found], auc_thresholds_px)
    correct = _correct(found, list(thresholds_px).index(correct_px)) if correct_px else None
    return MethodScores(
        pairs=len(found),
        matches=float(np.mean([score.matches for score in found])) if found else 0.0,
        shares=_by_threshold(thresholds_px, shares.mean(0) if found else [0.0] * shares.shape[1]),
        auc=_by_threshold(auc_thresholds_px, areas),
        correct=None if correct is None else float(correct.mean()),
        matched=None if correct is None else float((correct >= ENOUGH_CORRECT).mean()),
    )


def _correct(scores: Sequence[PairScore], threshold: int) -> Float64:
    """Number of matches of each pair within threshold number ``threshold``; one 0 for no pair."""
    counts = [round(score.matches * score.shares[threshold]) for score in scores]
    return np.array(counts or [0], np.float64)


def _by_threshold(thresholds: Sequence[float], values: Any) -> dict[str, float]:
    return {f"{t:g}": round(float(v), 6) for t, v in zip(thresholds, values, strict=True)}
