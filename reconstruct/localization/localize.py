"""Localize: the matches of queries with images of the map -> localized/, and poses.txt.

Each query has its own record in localized/; one that fails has a status and no pose, and is absent
from poses.txt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from reconstruct import colmap
from reconstruct.config import Section
from reconstruct.datasets import cameras
from reconstruct.errors import ConfigError, UsageError
from reconstruct.features import input_scale
from reconstruct.fingerprints import fingerprint
from reconstruct.localization.frame import QueryFrames, localize_frame
from reconstruct.localization.pose import LocalizeConfig
from reconstruct.localization.query import MatchedQuery, QueryLocalizer
from reconstruct.stages import Context, Plan
from reconstruct.stages.extract import Extract
from reconstruct.stages.keyed import KeyedStage, Result, Wanted, Worker
from reconstruct.stages.match import Match
from reconstruct.stages.pair import Pair
from reconstruct.stages.photos import KnownPhotos
from reconstruct.stages.verify import VerifyConfig
from reconstruct.stages.whole import WholeStage
from reconstruct.storage.estimates import EstimateStore
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.matches import MatchStore, pair_key
from reconstruct.storage.pairs import ordered
from reconstruct.storage.poses import write_poses
from reconstruct.types import PointMap, PoseEstimate


class MapLoader(Protocol):
    """Loads a map where it is needed."""

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Part of the map -> why it has no points, of those asked for so far."""

    def __call__(self) -> tuple[PointMap, Mapping[str, colmap.Camera]]:
        """The points that the images' keypoints see, and the images' cameras."""


class AnyMap(Protocol):
    """A map of either kind: stage Map, or `reconstruct.indoor.rgbd_map.RgbdMap`."""

    name: str

    @property
    def reference(self) -> Path | None:
        """Where its poses were given; None: it has a coordinate frame of its own."""

    def fingerprint(self) -> str | None:
        """Fingerprint of the map; None while it is unknown."""

    def current(self) -> bool:
        """Whether it is up to date."""

    def plan(self) -> Plan:
        """What has to be done before it is up to date."""

    def loader(self, extract: Extract) -> MapLoader:
        """Loads its points and cameras, in any process."""


class Localize(KeyedStage):
    """The stage."""

    name = "localize"
    unit = "queries"
    shard = (16, 16)
    keeps_unwanted = False

    def __init__(
        self,
        context: Context,
        config: LocalizeConfig,
        *,
        extract: Extract,
        pair: Pair,
        match: Match,
        mapped: AnyMap,
        camera_config: cameras.CamerasConfig,
        verify: VerifyConfig,
    ) -> None:
        self.estimates_store = EstimateStore(context.workspace.localized)
        super().__init__(context, self.estimates_store, [match, mapped])
        self.config = config
        self.extract = extract
        self.pair = pair
        self.match = match
        self.map = mapped
        self.camera_config = camera_config
        self.verify = verify
        self._rigs = None if config.rigs is None else colmap.Rigs(Path(config.rigs))
        if self._rigs is not None and not self._rigs.calibrated:
            raise ConfigError(
                f"{config.rigs}: localize.rigs needs the poses of all cameras in their rig "
                "(cam_from_rig_rotation, cam_from_rig_translation)"
            )

    def frames(self) -> QueryFrames:
        """Which queries are localized together."""
        return QueryFrames.of(self._rigs, sorted(self.pair.query_pairs()))

    def find_fingerprints(self) -> dict[str, str] | None:
        """Query -> fingerprint over the settings, the map, its camera and its matches."""
        mapped, matches = self.map.fingerprint(), self.match.fingerprints()
        if mapped is None or matches is None or not self.map.current():
            return None
        features = self.extract.known_fingerprints()
        given = {query.name: query.intrinsics for query in self.context.dataset.queries}
        limits = self.verify.identity() if self.config.verify_pairs else None
        common = [self.config.identity(), limits, self.context.seed, mapped]
        shared = cameras.identity(self.camera_config, self.context.dataset)
        found: dict[str, str] = {}
        for name, others in self.pair.query_pairs().items():
            known = given[name]
            camera = shared if known is None else [known.model, known.size, known.params]
            pairs = [ordered(name, other) for other in others]
            matched = [[*pair, matches[pair_key(pair)]] for pair in pairs]
            found[name] = fingerprint(
                "pose, own loss", common, name, camera, features[name], matched
            )
        together, by_itself = self.frames(), dict(found)
        for name, frame in together.frames.items():
            if len(frame) > 1:
                parts = [by_itself[other] for other in frame]
                found[name] = fingerprint("pose in a frame", together.identity, name, parts)
        return found

    def worker(self) -> Worker:
        """Estimates the poses of queries."""
        sizes = self.extract.features.image_sizes(sorted(self.known_fingerprints()))
        assigned = cameras.assign(self.camera_config, self.context.dataset, sizes)
        self._check_intrinsics(assigned)
        return LocalizeWorker(
            photos=self.extract.photos(),
            config=self.config,
            verify=self.verify,
            load_map=self.map.loader(self.extract),
            features=self.extract.features,
            matches=self.match.matches,
            pairs=self.pair.query_pairs(),
            frames=self.frames(),
            cameras=assigned,
            local=self.extract.config.local,
            device=self.context.device,
            seed=self.context.seed,
        )

    def _check_intrinsics(self, assigned: colmap.CameraAssignment) -> None:
        """Raises UsageError for a query of a frame whose camera is guessed."""
        for name, frame in self.frames().frames.items():
            if len(frame) > 1 and assigned.camera_ids[name] not in assigned.known:
                raise UsageError(
                    f"{name}: its intrinsics are not known, which localize.rigs needs; give a list "
                    "with intrinsics as dataset.queries, or dataset.cameras"
                )

    def estimates(self) -> list[PoseEstimate]:
        """All estimates, failures too, sorted by name."""
        return [self.estimates_store.load(name) for name in sorted(self.known_fingerprints())]

    def figures(self, made: int) -> dict[str, Any]:
        """How many queries have a pose, and which have none."""
        return _figures(self.estimates(), made)


@dataclass(frozen=True, kw_only=True, eq=False)
class LocalizeWorker:
    """Queries -> pose estimates."""

    photos: KnownPhotos
    config: LocalizeConfig
    verify: VerifyConfig
    load_map: MapLoader
    features: FeatureStore
    matches: MatchStore
    pairs: Mapping[str, Sequence[str]]
    frames: QueryFrames
    cameras: colmap.CameraAssignment
    local: Section
    device: str
    seed: int

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "localize"}

    @cached_property
    def localize(self) -> QueryLocalizer:
        """The map, loaded when the first query asks for it."""
        return QueryLocalizer(
            self.config,
            self.verify,
            *self.load_map(),
            photos=self.photos.root,
            device=self.device,
            seed=self.seed,
            read=self.photos.read_file,
        )

    def __call__(self, wanted: Sequence[Wanted]) -> Iterator[Result]:
        """Results for queries."""
        done: dict[str, PoseEstimate] = {}
        for name, value, _ in wanted:
            if name not in done:
                done |= self._estimates(self.frames.frames[name])
            record = EstimateStore.record(value, done.pop(name))
            yield Result(name, (record,), notes=dict(self.load_map.unreadable))

    def _estimates(self, frame: Sequence[str]) -> dict[str, PoseEstimate]:
        queries = [self._query(name) for name in frame]
        if len(frame) == 1:
            return {frame[0]: self.localize(queries[0])}
        poses = [self.frames.cams_from_rig[name] for name in frame]
        return dict(zip(frame, localize_frame(self.localize, queries, poses), strict=True))

    def _query(self, name: str) -> MatchedQuery:
        known = set(self.localize.tracks.names)
        camera_id = self.cameras.camera_ids[name]
        others = [other for other in self.pairs[name] if other in known]
        return MatchedQuery(
            name=name,
            image=self.photos.root / name,
            keypoints=self.features.keypoints(name),
            camera=self.cameras.cameras[camera_id],
            camera_known=camera_id in self.cameras.known,
            matches={other: self.matches.load_from(name, other) for other in others},
            map_keypoints=self._keypoints(others),
            input_scale=input_scale(self.local, self.features.image_size(name)),
        )

    def _keypoints(self, names: Sequence[str]) -> dict[str, Any]:
        if not self.config.verify_pairs:
            return {}
        return {name: self.features.keypoints(name) for name in names}


class WritePoses(WholeStage):
    """The poses of all queries that have one -> poses.txt."""

    name = "poses"

    def __init__(self, context: Context, localize: Localize) -> None:
        super().__init__(context, context.workspace.poses, [localize])
        self.localize = localize

    def find_fingerprint(self) -> str | None:
        """Fingerprint over the fingerprints of all queries."""
        queries = self.localize.fingerprints()
        return None if queries is None else fingerprint("poses", sorted(queries.items()))

    def make(self) -> None:
        """Write poses.txt."""
        estimates = self.localize.estimates()
        poses = {e.name: e.cam_from_world for e in estimates if e.cam_from_world is not None}
        write_poses(self.artifact, poses)

    def figures(self) -> dict[str, Any]:
        """Where they are."""
        return {"poses": str(self.artifact)}


def _figures(found: list[PoseEstimate], localized_now: int) -> dict[str, Any]:
    inliers = [e.inliers for e in found if e.status == "ok"]
    figures: dict[str, Any] = {
        "queries": len(found),
        "localized": len(inliers),
        "estimated_now": localized_now,
        "median_inliers": float(np.median(inliers)) if inliers else 0.0,
    }
    failed = [f"{e.name} ({e.status}, {e.matches} matches)" for e in found if e.status != "ok"]
    if failed:
        figures["failed"] = failed
    return figures
