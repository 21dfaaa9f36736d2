"""WxBS: does the fundamental matrix of the matches explain correspondences marked by hand?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from reconstruct.benchmark.protocols import PairScore, Reported
from reconstruct.datasets import Dataset
from reconstruct.datasets.wxbs import WxBS
from reconstruct.evaluation.epipolar import epipolar_distances_px
from reconstruct.evaluation.homography import share_within
from reconstruct.evaluation.robust import estimate_fundamental
from reconstruct.geometry import Float64
from reconstruct.types import ImagePair


@dataclass(frozen=True, kw_only=True, eq=False)
class WxBSBenchmark:
    """The protocol; see `reconstruct.benchmark.protocols.Benchmark`.

    max_error_px: threshold of MAGSAC++. seed: seed of its samples. repeats: number of estimates per
    pair, with different seeds, over which the score is averaged.
    """

    data: WxBS
    max_error_px: float = 1.0
    seed: int = 0
    repeats: int = 1

    name: ClassVar[str] = "wxbs"
    share: ClassVar[str] = "share near epipolar lines"
    reported: ClassVar[tuple[Reported, ...]] = ()
    source: ClassVar[str] = ""
    thresholds_px: ClassVar[tuple[float, ...]] = (5.0, 10.0, 20.0)
    correct_px: ClassVar[float | None] = None
    auc_thresholds_px: ClassVar[tuple[float, ...]] = ()

    @property
    def dataset(self) -> Dataset:
        """The images."""
        return self.data.dataset

    @property
    def groups(self) -> dict[str, tuple[ImagePair, ...]]:
        """All pairs, and those of each subset."""
        pairs = tuple(sorted(self.data.correspondences))
        subsets = sorted({pair[0].split("/")[0] for pair in pairs})
        groups = {s: tuple(p for p in pairs if p[0].startswith(f"{s}/")) for s in subsets}
        return {"overall": pairs, **groups}

    def identity(self) -> list[Any]:
        """Correspondences and settings."""
        truth = [[*pair, c.tolist()] for pair, c in sorted(self.data.correspondences.items())]
        return [self.name, self.thresholds_px, self.max_error_px, self.seed, self.repeats, truth]

    def check(self) -> dict[str, Any]:
        """Nothing to check beyond what the score does."""
        return {}

    def describe(self) -> dict[str, Any]:
        """Number of pairs and correspondences."""
        counts = [len(rows) for rows in self.data.correspondences.values()]
        return {"pairs": len(counts), "correspondences": sum(counts)}

    def score(
        self, pair: ImagePair, first: Float64, second: Float64, size: tuple[int, int]
    ) -> PairScore:
        """Share of correspondences within 5, 10, 20 px of both epipolar lines, and the median
        distance."""
        distances = [
            self._distances(pair, first, second, self.seed + i) for i in range(self.repeats)
        ]
        shares = np.mean([share_within(each, self.thresholds_px) for each in distances], axis=0)
        error_px = float(np.median(np.concatenate(distances)))
        return PairScore(matches=len(first), shares=tuple(shares.tolist()), error_px=error_px)

    def _distances(self, pair: ImagePair, first: Float64, second: Float64, seed: int) -> Float64:
        truth = self.data.correspondences[pair]
        found = estimate_fundamental(first, second, max_error_px=self.max_error_px, seed=seed)
        return epipolar_distances_px(found, truth[:, :2], truth[:, 2:])
