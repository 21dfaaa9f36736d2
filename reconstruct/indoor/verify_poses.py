"""Dense PV as a stage: candidate poses -> a score for each, how unlike the query the map looks."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from reconstruct.images import read_image
from reconstruct.indoor.candidates import SHARD, Candidates
from reconstruct.indoor.dense_verification import (
    VerificationConfig,
    prepare_query,
    sample_points,
    verify_poses,
)
from reconstruct.indoor.rendering import Cloud
from reconstruct.indoor.rgbd_map import RgbdMap
from reconstruct.stages import Context, Plan, make_parts, need, plan_parts
from reconstruct.storage.cache import Cache
from reconstruct.storage.candidates import ScoreStore
from reconstruct.storage.shards import Record
from reconstruct.types import FloatArray
from reconstruct.workspace import fingerprint

CLOUDS_MB = 1024
"""Memory for the points of images that wait for their next pose."""


class VerifyPoses:
    """The stage, for the candidates of one way to poses."""

    name = "verify poses"

    def __init__(
        self, context: Context, config: VerificationConfig, before: Candidates, scans: RgbdMap
    ) -> None:
        self.context = context
        self.config = config
        self.before = before
        self.scans = scans
        folder = fingerprint("scores", config.identity())[:8]
        self.store = ScoreStore(context.workspace.root / f"scores-{folder}")

    def wanted(self) -> dict[str, str] | None:
        """Query -> fingerprint of its scores; None while the candidates are incomplete."""
        candidates = self.before.wanted()
        if candidates is None or self.before.plan().state != "done":
            return None
        identity, wanted = self.config.identity(), {}
        for name, value in candidates.items():
            images = self._images(set(self.before.store.load(name).places))
            scans = self.scans.identity([other for own in images.values() for other in own])
            wanted[name] = fingerprint("scores", identity, value, scans)
        return wanted

    def plan(self) -> Plan:
        """How many queries lack scores."""
        return plan_parts(self.wanted(), self.store.fingerprints(), "follows the candidates")

    def discard(self) -> None:
        """Drop all scores."""
        self.store.discard(lambda key: True)

    def run(self) -> None:
        """Judge what is missing."""
        wanted = self.wanted()
        need(wanted is not None, self.name, self.before.name)
        assert wanted is not None
        make_parts(
            self.context,
            self.name,
            self.store,
            wanted,
            lambda todo: self._records(todo, wanted),
            unit="queries",
            shard=SHARD,
        )

    def _images(self, places: set[str]) -> dict[str, list[str]]:
        """Place -> its images, sorted."""
        found: dict[str, list[str]] = {place: [] for place in sorted(places)}
        for name, place in sorted(self.scans.places.items()):
            if place in found:
                found[place].append(name)
        return found

    def _records(self, todo: list[str], wanted: Mapping[str, str]) -> Iterator[Record]:
        if not todo:
            return
        # A pose may stand nearer than the camera did: half as dense again as the query.
        edge = self.config.max_edge * 3 // 2
        cameras = self.before.query_cameras(todo)
        clouds: Cache[Cloud] = Cache(lambda name: self.scans.cloud(name, edge), CLOUDS_MB << 20)
        # A place may be larger than that: what tells which images a pose sees, is kept of all.
        samples: dict[str, FloatArray] = {}

        def sample(name: str) -> FloatArray:
            if name not in samples:
                samples[name] = sample_points(clouds[name])
            return samples[name]

        for name in todo:
            started = time.perf_counter()
            found = self.before.store.load(name)
            photo = read_image(self.context.dataset.path(name))
            query = prepare_query(photo, cameras[name], self.config.max_edge)
            images = self._images(set(found.places))
            scores = verify_poses(
                query,
                list(found.poses),
                [images[place] for place in found.places],
                clouds.__getitem__,
                sample,
                self.config,
            )
            seconds = time.perf_counter() - started
            yield ScoreStore.record(name, wanted[name], scores, seconds)
