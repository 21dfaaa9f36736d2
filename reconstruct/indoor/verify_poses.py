"""Dense PV as a stage: candidate poses -> a score for each, how unlike the query the map looks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconstruct import colmap
from reconstruct.fingerprints import fingerprint
from reconstruct.images import read_image
from reconstruct.indoor.candidates import Candidates
from reconstruct.indoor.dense_verification import (
    VerificationConfig,
    prepare_query,
    sample_points,
    verify_poses,
)
from reconstruct.indoor.rendering import Cloud
from reconstruct.indoor.rgbd_map import RgbdMap
from reconstruct.indoor.scans import Scans
from reconstruct.stages import Context
from reconstruct.stages.keyed import KeyedStage, Result, Wanted, Worker
from reconstruct.storage.cache import Cache
from reconstruct.storage.candidates import CandidateStore, ScoreStore
from reconstruct.types import FloatArray

CLOUDS_MB = 1024
"""Memory for the points of images that wait for their next pose."""


class VerifyPoses(KeyedStage):
    """The stage, for the candidates of one way to poses."""

    name = "verify poses"
    unit = "queries"
    shard = (4, 4)  # a query may take a minute
    keeps_unwanted = False

    def __init__(
        self, context: Context, config: VerificationConfig, before: Candidates, scans: RgbdMap
    ) -> None:
        folder = fingerprint("scores", config.identity())[:8]
        self.scores = ScoreStore(context.workspace.root / f"scores-{folder}")
        super().__init__(context, self.scores, [before])
        self.config = config
        self.candidates = before
        self.scans = scans

    def find_fingerprints(self) -> dict[str, str] | None:
        """Query -> fingerprint over the settings, its candidates, and the scans of their places."""
        if not self.candidates.current():
            return None
        identity, found = self.config.identity(), {}
        for name, value in self.candidates.known_fingerprints().items():
            images = self._images(set(self.candidates.candidates.load(name).places))
            scans = self.scans.identity([other for each in images.values() for other in each])
            found[name] = fingerprint("scores", identity, value, scans)
        return found

    def figures(self, made: int) -> dict[str, Any]:
        """How many queries have scores."""
        return {"queries": len(self.known_fingerprints()), "verified_now": made}

    def worker(self) -> Worker:
        """Scores candidate poses."""
        candidates = self.candidates.candidates
        names = sorted(self.known_fingerprints())
        places = {place for name in names for place in candidates.load(name).places}
        return ScoreWorker(
            config=self.config,
            candidates=candidates,
            scans=self.scans.scans,
            images=self._images(places),
            cameras=self.candidates.query_cameras(),
            photos=self.context.dataset.root,
        )

    def _images(self, places: set[str]) -> dict[str, list[str]]:
        """Place -> its images, sorted."""
        found: dict[str, list[str]] = {place: [] for place in sorted(places)}
        for name, place in sorted(self.scans.scans.places.items()):
            if place in found:
                found[place].append(name)
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScoreWorker:
    """Queries -> the scores of their candidate poses.

    Args:
        config: Settings of Dense PV.
        candidates: Candidate poses.
        scans: The map.
        images: Place -> its images.
        cameras: The queries' cameras by name.
        photos: Folder of the queries.
    """

    config: VerificationConfig
    candidates: CandidateStore
    scans: Scans
    images: Mapping[str, Sequence[str]]
    cameras: Mapping[str, colmap.Camera]
    photos: Path

    def __call__(self, wanted: Sequence[Wanted]) -> Iterator[Result]:
        """Results for queries."""
        # A pose may stand nearer than the camera did: half as dense again as the query.
        edge = self.config.max_edge * 3 // 2
        clouds: Cache[Cloud] = Cache(lambda name: self.scans.cloud(name, edge), CLOUDS_MB << 20)
        # A place may be larger than that, so the samples that tell what a pose sees are all kept.
        samples: dict[str, FloatArray] = {}

        def sample(name: str) -> FloatArray:
            if name not in samples:
                samples[name] = sample_points(clouds[name])
            return samples[name]

        for name, value, _ in wanted:
            started = time.perf_counter()
            found = self.candidates.load(name)
            photo = read_image(self.photos / name)
            scores = verify_poses(
                prepare_query(photo, self.cameras[name], self.config.max_edge),
                list(found.poses),
                [list(self.images[place]) for place in found.places],
                clouds.__getitem__,
                sample,
                self.config,
            )
            seconds = time.perf_counter() - started
            record = ScoreStore.record(name, value, scores, seconds)
            yield Result(name, (record,), notes=dict(self.scans.unreadable))
