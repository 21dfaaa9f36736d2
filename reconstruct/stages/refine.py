"""Refine: move keypoints to where their tracks agree -> database.db, verified again.

The alignment of a pair depends on its two images and its verified matches, so it is stored and
resumed pair by pair, like matching; the solution over all tracks takes seconds and is made whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct import colmap
from reconstruct.errors import EstimationError
from reconstruct.images import read_image
from reconstruct.parallel import side_by_side
from reconstruct.refinement import (
    PairAlignment,
    Pyramid,
    RefineConfig,
    Refined,
    align_pair,
    refine_keypoints,
)
from reconstruct.refinement.patches import build_pyramid, level0_scale
from reconstruct.stages import Context, Plan, need, plan_whole
from reconstruct.stages.match import tiled
from reconstruct.stages.verify import Verify
from reconstruct.storage.cache import Cache
from reconstruct.storage.matches import pair_key
from reconstruct.storage.shards import (
    Record,
    ShardStore,
    clean_temporaries,
    shard_size,
    write_in_shards,
)
from reconstruct.torch_device import resolve_device
from reconstruct.types import ImagePair
from reconstruct.workspace import atomic_path, fingerprint

Inliers = dict[ImagePair, NDArray[np.uint32]]


class Refine:
    """The stage. ``database`` is where the refined database stands."""

    name = "refine"

    def __init__(self, context: Context, config: RefineConfig, verify: Verify) -> None:
        self.context = context
        self.config = config
        self.verify = verify
        self.database = context.workspace.database
        self.store = ShardStore(context.workspace.alignments)

    def fingerprint(self) -> str | None:
        """Over settings and the verified database; None while that cannot be known."""
        before = self.verify.fingerprint()
        return None if before is None else fingerprint("refined", self.config.identity(), before)

    def assign_cameras(self) -> colmap.CameraAssignment:
        """Cameras as they are in the database."""
        return self.verify.assign_cameras()

    def plan(self) -> Plan:
        """Whether the refined database stands for the verified one."""
        return plan_whole(self.context, self.database, self.fingerprint(), self.database.name)

    def discard(self) -> None:
        """Drop alignments and the refined database."""
        self.store.discard(lambda key: True)
        self.context.workspace.set_stamp(self.database, None)

    def run(self) -> None:
        """Write the refined database. Raises EstimationError if no pair passes it."""
        need(self.verify.plan().state == "done", self.name, self.verify.name)
        if self.plan().state != "done":
            self._make()
        before = colmap.verified_matches(self.verify.database)
        after = colmap.verified_matches(self.database)
        if not after:
            raise EstimationError(
                "no pair of images is left after refinement; run without section `refine`"
            )
        total = sum(map(len, before.values()))
        self.context.summary.figures[self.name] = {
            "verified_pairs": len(after),
            "of_pairs": len(before),
            "inliers_kept_percent": round(100 * sum(map(len, after.values())) / total, 1),
            **self.context.summary.figures.get(self.name, {}),
        }

    def _make(self) -> None:
        workspace, value = self.context.workspace, self.fingerprint()
        workspace.set_stamp(self.database, None)
        inliers = colmap.verified_matches(self.verify.database)
        keypoints = colmap.database_keypoints(self.verify.database)
        self._align(inliers, keypoints)
        refined = refine_keypoints(
            {name: rows * self._scale(name) for name, rows in keypoints.items()},
            inliers,
            {pair: PairAlignment(**self.store.read(pair_key(pair))) for pair in inliers},
            self.config,
        )
        with atomic_path(self.database) as temporary:
            colmap.write_database(
                temporary,
                self.assign_cameras(),
                lambda name: self._moved(name, keypoints[name], refined),
                ((pair, rows[refined.kept[pair]]) for pair, rows in inliers.items()),
            )
            self.verify.verify_database(temporary)
        workspace.set_stamp(self.database, value)
        self._report(inliers, refined)

    def _align(self, inliers: Inliers, keypoints: dict[str, NDArray[np.float32]]) -> None:
        clean_temporaries(self.store.folder)
        wanted = {pair: self._wanted(pair, rows) for pair, rows in inliers.items()}
        have = self.store.fingerprints()
        todo = [pair for pair in tiled(list(wanted)) if have.get(pair_key(pair)) != wanted[pair]]
        size = shard_size(len(wanted), 4, 64)
        records = self._records(todo, wanted, inliers, keypoints)
        with self.context.reporter.task(self.name, len(todo), "pairs") as advance:
            for _ in write_in_shards(self.store, records, size):
                advance()
        self.store.compact()

    def _wanted(self, pair: ImagePair, matches: NDArray[np.uint32]) -> str:
        prints = self.verify.extract.wanted()
        rows = fingerprint("rows", matches.tolist())
        return fingerprint("alignment", self.config.identity(), [prints[n] for n in pair], rows)

    def _records(
        self,
        todo: list[ImagePair],
        wanted: dict[ImagePair, str],
        inliers: Inliers,
        keypoints: dict[str, NDArray[np.float32]],
    ) -> Iterator[Record]:
        pyramids = Cache[Pyramid](self._pyramid, self.config.cache_mb << 20)
        jobs = ((pair, pyramids[pair[0]], pyramids[pair[1]]) for pair in todo)

        def work(job: tuple[ImagePair, Pyramid, Pyramid]) -> tuple[ImagePair, PairAlignment]:
            pair, first, second = job
            points = keypoints[pair[0]], keypoints[pair[1]]
            return pair, align_pair(first, second, *points, inliers[pair], self.config)

        for pair, found in side_by_side(work, jobs):
            columns = {field.name: getattr(found, field.name) for field in fields(found)}
            yield Record(pair_key(pair), wanted[pair], columns)

    def _pyramid(self, name: str) -> Pyramid:
        image = read_image(self.context.dataset.path(name))
        device = resolve_device(self.context.device)
        return build_pyramid(image, self.config.max_edge, device)

    def _moved(
        self, name: str, keypoints: NDArray[np.float32], refined: Refined
    ) -> NDArray[np.float32]:
        moved = keypoints + refined.displacement[name] / self._scale(name)
        return np.asarray(moved, np.float32)

    def _scale(self, name: str) -> NDArray[np.float64]:
        """Pixels in which alignments are given per pixel of the photo, along x and y."""
        return np.asarray(level0_scale(self.verify.image_size(name), self.config.max_edge))

    def _report(self, inliers: Inliers, refined: Refined) -> None:
        matched: dict[str, Any] = {name: set() for name in refined.refined}
        for (first, second), rows in inliers.items():
            matched[first].update(rows[:, 0].tolist())
            matched[second].update(rows[:, 1].tolist())
        count = sum(map(len, matched.values()))
        done = sum(int(rows.sum()) for rows in refined.refined.values())
        residuals = refined.residuals_px
        self.context.summary.figures[self.name] = {
            "matched_keypoints": count,
            "refined_percent": round(100 * done / max(count, 1), 1),
            "median_residual_px": round(float(np.median(residuals)), 3) if len(residuals) else None,
        }
