"""HPatches as D2-Net's authors use it: mean matching accuracy (MMA) of all mutual neighbours.

Beside it, how well a homography estimated from the matches fits (MAGSAC++ and least squares, error
at the corners).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from reconstruct.benchmark.protocols import PairScore, Reported
from reconstruct.datasets import Dataset
from reconstruct.datasets.hpatches import FULL, HPatches, check_directions
from reconstruct.evaluation.homography import corner_error_px, share_within, transfer_errors_px
from reconstruct.evaluation.robust import estimate_homography
from reconstruct.geometry import Float64
from reconstruct.types import ImagePair

REPORTED = (
    Reported("Hessian-affine + RootSIFT", 6700, 2800),
    Reported("HesAffNet + HardNet++", 3900, 2000),
    Reported("SuperPoint", 1700, 900),
    Reported("LF-Net", 500, 200),
    Reported("DELF", 4600, 1900),
    Reported("D2 SS off-the-shelf", 2994, 1183),
    Reported("D2 MS off-the-shelf", 4928, 1698),
    Reported("D2 SS trained", 5965, 2496),
    Reported("D2 MS trained", 8255, 2832),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class HPatchesBenchmark:
    """The protocol; see `reconstruct.benchmark.protocols.Benchmark`.

    max_error_px: threshold of MAGSAC++. seed: seed of its samples.
    """

    data: HPatches
    max_error_px: float = 1.0
    seed: int = 0

    name: ClassVar[str] = "hpatches"
    share: ClassVar[str] = "mean matching accuracy"
    reported: ClassVar[tuple[Reported, ...]] = REPORTED
    source: ClassVar[str] = "Dusmanu et al., CVPR 2019, on all 108 sequences"
    thresholds_px: ClassVar[tuple[float, ...]] = tuple(float(t) for t in range(1, 11))
    correct_px: ClassVar[float | None] = None
    auc_thresholds_px: ClassVar[tuple[float, ...]] = (1.0, 3.0, 5.0)

    @property
    def dataset(self) -> Dataset:
        """The images."""
        return self.data.dataset

    @property
    def groups(self) -> dict[str, tuple[ImagePair, ...]]:
        """All pairs, and those of each type of sequence."""
        pairs = sorted(self.data.homographies)
        kinds = {"overall": "", "illumination": "i_", "viewpoint": "v_"}
        return {
            name: tuple(pair for pair in pairs if pair[0].startswith(start))
            for name, start in kinds.items()
        }

    def identity(self) -> list[Any]:
        """Homographies and settings."""
        truth = [[*pair, h.tolist()] for pair, h in sorted(self.data.homographies.items())]
        settings = [self.thresholds_px, self.max_error_px, self.seed, "polished"]
        return [self.name, *settings, truth]

    def check(self) -> dict[str, Any]:
        """Correlation of warped images, by sequence. Raises DataError for reversed homographies."""
        return {"correlation_of_warps": check_directions(self.data)}

    def describe(self) -> dict[str, Any]:
        """Number of the 108 sequences that are present."""
        kinds = [name[:2] for name in self.data.sequences]
        return {
            "sequences": len(kinds),
            "illumination": kinds.count("i_"),
            "viewpoint": kinds.count("v_"),
            "complete": len(kinds) == FULL,
            "left_out": list(self.data.left_out),
        }

    def score(
        self, pair: ImagePair, first: Float64, second: Float64, size: tuple[int, int]
    ) -> PairScore:
        """Share of matches within 1 to 10 px of the true position, and corner error of the
        estimated homography."""
        truth = self.data.homographies[pair]
        errors = transfer_errors_px(first, second, truth)
        estimated = estimate_homography(
            first, second, max_error_px=self.max_error_px, seed=self.seed
        )
        return PairScore(
            matches=len(first),
            shares=tuple(share_within(errors, self.thresholds_px).tolist()),
            error_px=corner_error_px(estimated, truth, size),
        )
