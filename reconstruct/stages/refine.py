"""Refine: the alignments of all pairs -> refined/, keypoints moved to where their tracks agree.

    refined/keypoints/part-*.h5   image -> keypoints (N, 2), refined (N,)
    refined/matches/part-*.h5     pair -> the matches that do not join two places of one image
    refined/figures.json          how many keypoints were refined, for the report

The solution over all tracks takes seconds and is made whole. Stage `VerifyRefined` then estimates
two-view geometries again, pair by pair, from the moved keypoints.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.atomic import atomic_path
from reconstruct.errors import ArtifactError
from reconstruct.files import read_json
from reconstruct.fingerprints import array_hash, fingerprint
from reconstruct.refinement import RefineConfig, Refined, refine_keypoints
from reconstruct.refinement.patches import level0_scale
from reconstruct.stages import Context
from reconstruct.stages.align import Align
from reconstruct.stages.keyed import KeyedStage, Worker
from reconstruct.stages.verify import (
    Inputs,
    RobustEstimator,
    Verify,
    VerifyWorker,
    check_indices,
    verification_figures,
)
from reconstruct.stages.whole import WholeStage
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.geometries import GeometryStore
from reconstruct.storage.matches import MatchStore, key_pair, pair_key
from reconstruct.storage.shard_file import Record
from reconstruct.storage.shard_writer import ShardWriter
from reconstruct.storage.shards import ShardStore
from reconstruct.types import ImagePair, TwoViewGeometry

SHARD = 64
FIGURES = "figures.json"


class Refine(WholeStage):
    """The stage."""

    name = "refine"

    def __init__(
        self, context: Context, config: RefineConfig, verify: Verify, align: Align
    ) -> None:
        super().__init__(context, context.workspace.refined, [align])
        self.config = config
        self.verify = verify
        self.align = align
        self._open()

    def _open(self) -> None:
        self.keypoints = ShardStore(self.artifact / "keypoints")
        self.matches = MatchStore(self.artifact / "matches")

    def find_fingerprint(self) -> str | None:
        """Fingerprint over the settings and all alignments."""
        alignments = self.align.fingerprints()
        if alignments is None:
            return None
        return fingerprint("refined", self.config.identity(), sorted(alignments.items()))

    def make(self) -> None:
        """Solve for the displacement of every keypoint, and store where they are now."""
        pairs = self.verify.pairs()
        names = sorted({name for pair in pairs for name in pair})
        inliers = {pair: self.verify.geometries.inliers(pair) for pair in pairs}
        keypoints = {name: self.verify.keypoints(name) for name in names}
        scales = {name: self.scale(name) for name in names}
        alignments = {pair: self.align.load(pair) for pair in pairs}
        for a, b in pairs:
            check_indices((a, b), inliers[a, b], (len(keypoints[a]), len(keypoints[b])))
            if len(alignments[a, b].aligned) != len(inliers[a, b]):
                raise ArtifactError(
                    f"alignments of {(a, b)} are damaged; run again with --force align"
                )
        refined = refine_keypoints(
            {name: points * scales[name] for name, points in keypoints.items()},
            inliers,
            alignments,
            self.config,
        )
        with atomic_path(self.artifact) as temporary:
            moved = {
                name: np.asarray(points + refined.displacement[name] / scales[name], np.float32)
                for name, points in keypoints.items()
            }
            _write(temporary, moved, inliers, refined)
        self._open()

    def scale(self, name: str) -> NDArray[np.float64]:
        """Pixels in which alignments are given per pixel of the photo, along x and y."""
        size = self.verify.extract.features.image_size(name)
        return np.asarray(level0_scale(size, self.config.max_edge))

    def figures(self) -> dict[str, Any]:
        """How many matched keypoints were refined, as it was found when they were."""
        return dict(read_json(self.artifact / FIGURES))


def _figures(
    inliers: Mapping[ImagePair, NDArray[np.uint32]], refined: Refined
) -> dict[str, float | None]:
    matched: dict[str, list[NDArray[np.uint32]]] = {}
    for pair, matches in inliers.items():
        for name, column in zip(pair, matches.T, strict=True):
            matched.setdefault(name, []).append(column)
    count = sum(len(np.unique(np.concatenate(columns))) for columns in matched.values())
    moved = sum(int(flags.sum()) for flags in refined.refined.values())
    residuals = refined.residuals_px
    return {
        "matched_keypoints": count,
        "refined_percent": round(100 * moved / max(count, 1), 1),
        "median_residual_px": round(float(np.median(residuals)), 3) if len(residuals) else None,
    }


def _write(
    folder: Path,
    keypoints: Mapping[str, NDArray[np.float32]],
    inliers: Mapping[ImagePair, NDArray[np.uint32]],
    refined: Refined,
) -> None:
    """The stores of a solution; each record's fingerprint is that of its content."""
    writer = ShardWriter(ShardStore(folder / "keypoints"), SHARD)
    for name, points in sorted(keypoints.items()):
        columns = {"keypoints": points, "refined": refined.refined[name]}
        writer.add(Record(name, array_hash(points), columns))
    writer.flush()
    writer = ShardWriter(ShardStore(folder / "matches"), SHARD)
    for pair, matches in sorted(inliers.items()):
        kept = matches[refined.kept[pair]]
        writer.add(Record(pair_key(pair), array_hash(kept), {"matches": kept}))
    writer.flush()
    text = json.dumps(_figures(inliers, refined), indent=1)
    (folder / FIGURES).write_text(text + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class RefinedInputs:
    """Reads keypoints and matches of pairs as refinement left them.

    Args:
        detected: Image -> its features as they were found.
        refined: Image -> its moved keypoints, for those of which a match passed.
        matches: The matches that refinement kept.
    """

    detected: FeatureStore
    refined: ShardStore
    matches: MatchStore

    def __call__(self, pair: ImagePair) -> Inputs:
        """The keypoints and the matches of a pair."""
        return self.keypoints(pair[0]), self.keypoints(pair[1]), self.matches.load(pair)

    def keypoints(self, name: str) -> NDArray[np.float32]:
        """(N, 2) keypoints of an image: moved, or as detected where no match of it passed."""
        if name not in self.refined:
            return self.detected.keypoints(name)
        keypoints: NDArray[np.float32] = self.refined.read(name, "keypoints")["keypoints"]
        return keypoints


@dataclass(frozen=True, slots=True, eq=False)
class RefinedEstimator:
    """Two-view geometry with a tight limit for refined matches, and a loose one for the others.

    Args:
        loose: Estimates with any limit.
        max_error_px: The tight limit.
        keypoints: Image -> its keypoints, and which of them were refined.
    """

    loose: RobustEstimator
    max_error_px: float
    keypoints: ShardStore

    def __call__(self, pair: ImagePair, inputs: Inputs) -> TwoViewGeometry:
        """The geometry of ``pair``: of its refined matches, joined by others that agree with it."""
        first, second, matches = inputs
        moved = [self.keypoints.read(name, "refined")["refined"] for name in pair]
        exact = moved[0][matches[:, 0]] & moved[1][matches[:, 1]]
        tight = self.loose.estimate(pair, (first, second, matches[exact]), self.max_error_px)
        if not len(tight.inliers):
            return self.loose(pair, inputs)
        if exact.all():
            return tight
        both = np.concatenate([tight.inliers, matches[~exact]])
        joined = self.loose(pair, (first, second, both)).inliers
        inexact = {tuple(match) for match in matches[~exact].tolist()}
        others = [match for match in joined.tolist() if tuple(match) in inexact]
        inliers = np.array(sorted([*tight.inliers.tolist(), *others]), np.uint32).reshape(-1, 2)
        return replace(tight, inliers=inliers)


class VerifyRefined(KeyedStage):
    """Two-view geometries from refined keypoints, pair by pair."""

    name = "verify_refined"
    unit = "pairs"
    shard = (4, 256)
    keeps_unwanted = False
    refined = True

    def __init__(self, context: Context, verify: Verify, refine: Refine) -> None:
        self.geometries = GeometryStore(context.workspace.refined_geometries)
        super().__init__(context, self.geometries, [refine])
        self.verify = verify
        self.refine = refine

    def find_fingerprints(self) -> dict[str, str] | None:
        """Pair -> fingerprint over the settings, its moved keypoints, its matches and cameras.

        A pair whose keypoints did not move when photos were added keeps its geometry.
        """
        if not self.refine.current():
            return None
        settings, identities = self.verify.settings(), self.verify.cameras.identities
        keypoints, matches = self.refine.keypoints.fingerprints(), self.refine.matches
        found = {}
        for key, value in matches.fingerprints().items():
            contents = [[keypoints[name], identities[name]] for name in key_pair(key)]
            found[key] = fingerprint("refined geometry", settings, value, contents)
        return found

    def order(self, keys: Sequence[str]) -> list[str]:
        """The order of matching, in which keypoints are read seldom."""
        return self.verify.order(keys)

    def worker(self) -> Worker:
        """Estimates the geometry of pairs."""
        estimate = self.verify.estimator()
        limit = self.verify.config.max_error_refined_px
        if limit is not None and isinstance(estimate, RobustEstimator):
            estimate = RefinedEstimator(estimate, limit, self.refine.keypoints)
        return VerifyWorker(estimate=estimate, inputs=self._inputs())

    def _inputs(self) -> RefinedInputs:
        refine = self.refine
        return RefinedInputs(self.verify.extract.features, refine.keypoints, refine.matches)

    def keypoints(self, name: str) -> NDArray[np.float32]:
        """(N, 2) keypoints of an image: moved, or as detected where no match of it passed."""
        return self._inputs().keypoints(name)

    def pixel_scale(self, name: str) -> float:
        """See `Verified`."""
        return float(1 / self.refine.scale(name).mean())

    def matches(self, pair: ImagePair) -> NDArray[np.uint32]:
        """(M, 2) matches of a pair that refinement kept."""
        return self.refine.matches.load(pair)

    def geometry(self, pair: ImagePair) -> TwoViewGeometry:
        """The geometry of a pair."""
        return self.geometries.load(pair)

    def pairs(self) -> list[ImagePair]:
        """Sorted pairs of which at least one match passed."""
        return self.geometries.passed(self.known_fingerprints())

    def figures(self, made: int) -> dict[str, Any]:
        """How many pairs passed. Raises EstimationError if none did."""
        wanted = self.known_fingerprints()
        figures = verification_figures(self.geometries, wanted, made, self.verify.config)
        before = self.verify.geometries.lengths("inliers")
        after = self.geometries.lengths("inliers")
        total = sum(before[key] for key in wanted)
        kept = 100 * sum(after[key] for key in wanted) / max(total, 1)
        return {**figures, "inliers_kept_percent": round(kept, 1)}
