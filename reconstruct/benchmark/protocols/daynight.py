"""Day and night from a fixed camera: how many of the matches lie where they started.

The truth is the identity (`reconstruct.datasets.daynight`), so every match is right or wrong by
its length alone, and matches of one light (day-day, night-night) stand beside those across.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

import numpy as np

from reconstruct.benchmark.protocols import PairScore, Reported
from reconstruct.datasets import Dataset
from reconstruct.datasets.daynight import DayNight
from reconstruct.evaluation.homography import share_within
from reconstruct.geometry import Float64
from reconstruct.types import ImagePair


@dataclass(frozen=True, kw_only=True, eq=False)
class DayNightBenchmark:
    """The protocol; see `reconstruct.benchmark.protocols.Benchmark`."""

    data: DayNight

    name: ClassVar[str] = "daynight"
    share: ClassVar[str] = "matches near the truth"
    reported: ClassVar[tuple[Reported, ...]] = ()
    source: ClassVar[str] = ""
    thresholds_px: ClassVar[tuple[float, ...]] = (1.0, 3.0, 5.0)
    auc_thresholds_px: ClassVar[tuple[float, ...]] = ()
    correct_px: ClassVar[float | None] = 3.0

    @property
    def dataset(self) -> Dataset:
        """The images."""
        return self.data.dataset

    @property
    def groups(self) -> dict[str, tuple[ImagePair, ...]]:
        """All pairs, and those of each kind."""
        pairs = tuple(sorted(chain.from_iterable(self.data.pairs.values())))
        return {"overall": pairs, **self.data.pairs}

    def identity(self) -> list[Any]:
        """Pairs and settings; that the truth is the identity goes without saying."""
        return [self.name, self.thresholds_px, sorted(self.data.pairs.items())]

    def check(self) -> dict[str, Any]:
        """Nothing: sizes were compared when the data was loaded."""
        return {}

    def describe(self) -> dict[str, Any]:
        """How many cameras, photos and pairs of each kind are here."""
        pairs = {kind: len(chosen) for kind, chosen in self.data.pairs.items()}
        return {
            "cameras": list(self.data.cameras),
            "photos": len(self.data.dataset.names),
            "pairs": pairs,
        }

    def score(
        self, pair: ImagePair, first: Float64, second: Float64, size: tuple[int, int]
    ) -> PairScore:
        """Share of matches within 1, 3, 5 px of the truth, and their median distance from it."""
        errors = np.linalg.norm(second - first, axis=1)
        return PairScore(
            matches=len(first),
            shares=tuple(share_within(errors, self.thresholds_px).tolist()),
            error_px=float(np.median(errors)) if len(errors) else float("inf"),
        )
