"""Localize: the matches of queries with images of the map -> poses.txt.

A query's matches with an image of the map become 2D-3D matches through the points that the
image's keypoints belong to; those of all its pairs are merged, and a camera pose is estimated by
LO-RANSAC. Each query has its own record in localized/; a query that fails has a status and no
pose, and is absent from poses.txt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from reconstruct import colmap
from reconstruct.config import Section
from reconstruct.datasets import cameras
from reconstruct.errors import UsageError
from reconstruct.localization.refine_query import QueryRefiner, RefineQueryConfig
from reconstruct.matching.covisibility import covisibility_clusters
from reconstruct.stages import Context, Plan, make_parts, plan_parts
from reconstruct.stages.extract import Extract
from reconstruct.stages.match import Match
from reconstruct.stages.pair import Pair
from reconstruct.storage.estimates import EstimateStore
from reconstruct.storage.poses import write_poses
from reconstruct.storage.shards import Record
from reconstruct.types import FloatArray, PointMap, PoseEstimate
from reconstruct.workspace import fingerprint

SHARD = 16


class LocalizeConfig(Section):
    """Section ``localize``."""

    max_error_px: float = Field(12.0, gt=0)
    """Largest reprojection error of an inlier, in pixels of the query."""
    min_inliers: int = Field(12, ge=4)
    """A pose with fewer is a failure; so is a query with fewer 2D-3D matches."""
    max_trials: int = Field(10_000, ge=1)
    """Of RANSAC."""
    verify_pairs: bool = False
    """Keep of each pair only the matches that agree with one two-view geometry (section
    ``verify``) before they are merged."""
    clusters: bool = False
    """Localize against each group of paired images that see common points by itself, and keep the
    pose with most inliers: where retrieval brings several places."""
    refine_focal: bool | None = None
    """Estimate the query's focal length too. null: only where its intrinsics are not known."""
    refine: RefineQueryConfig | None = None
    """Move the keypoints of a query to agree with the photos of the map, then estimate its pose
    again. null: they stay as detected. Where section `refine` moved the map's keypoints this
    belongs on: a query's share errors with raw ones of the map, and no longer with refined ones."""


Matches2D3D = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Keypoint index and point id of each 2D-3D match, (M,) and (M,)."""


def lift_matches(
    matches: Mapping[str, NDArray[np.uint32]], points: Mapping[str, NDArray[np.int64]]
) -> Matches2D3D:
    """2D-3D matches of a query, merged over its pairs; each once, sorted.

    matches: image of the map -> (M, 2) indices, the query's keypoint first. points: image -> point
    id of each of its keypoints, -1 where it has none. A keypoint may keep several points: RANSAC
    decides between them.
    """
    parts = [np.zeros((0, 2), np.int64)]
    for name, rows in sorted(matches.items()):
        ids = points[name][rows[:, 1].astype(np.int64)]
        parts.append(np.column_stack([rows[:, 0].astype(np.int64), ids])[ids >= 0])
    merged = np.unique(np.concatenate(parts), axis=0)
    return merged[:, 0], merged[:, 1]


def estimate(
    name: str,
    keypoints: FloatArray,
    lifted: Matches2D3D,
    tracks: PointMap,
    camera: colmap.Camera,
    config: LocalizeConfig,
    *,
    refine_focal: bool,
    seed: int,
) -> PoseEstimate:
    """The pose of a query from its 2D-3D matches; a status where there is none.

    keypoints: (N, 2) COLMAP pixels. An inlier counts once a keypoint.
    """
    index, ids = lifted
    count = len(np.unique(index))
    if count < config.min_inliers:
        return PoseEstimate(name=name, status="too_few_matches", matches=count)
    found = colmap.estimate_pose(
        keypoints[index].astype(np.float64),
        tracks.positions(ids),
        camera,
        max_error_px=config.max_error_px,
        max_trials=config.max_trials,
        refine_focal=refine_focal,
        seed=seed,
    )
    inliers = 0 if found is None else len(np.unique(index[found[1]]))
    if found is None or inliers < config.min_inliers:
        return PoseEstimate(name=name, status="ransac_failed", matches=count, inliers=inliers)
    pose, _, covariance, refined = found
    return PoseEstimate(
        name=name,
        status="ok",
        matches=count,
        inliers=inliers,
        cam_from_world=pose,
        covariance=covariance,
        params=colmap.intrinsics(refined).params,
    )


def localize_matches(
    name: str,
    keypoints: FloatArray,
    matches: Mapping[str, NDArray[np.uint32]],
    tracks: PointMap,
    camera: colmap.Camera,
    config: LocalizeConfig,
    *,
    refine_focal: bool,
    seed: int,
    refine: Callable[[PoseEstimate], FloatArray] | None = None,
) -> PoseEstimate:
    """The pose of a query from its matches with images of the map (query's keypoint first).

    With ``config.clusters`` the best of the poses against each cluster. refine: the query's
    keypoints moved, given that pose; it is then estimated once more, from them.
    """
    names = sorted(set(matches) & set(tracks.names))
    points = {other: tracks.points(other) for other in names}
    groups = covisibility_clusters(names, points) if config.clusters else [names]
    best = PoseEstimate(name=name, status="too_few_matches", matches=0)
    for group in groups:
        lifted = lift_matches({other: matches[other] for other in group}, points)
        found = estimate(
            name, keypoints, lifted, tracks, camera, config, refine_focal=refine_focal, seed=seed
        )
        best = max(best, found, key=lambda e: (e.status == "ok", e.inliers, e.matches))
    if refine is None or best.status != "ok":
        return best
    return localize_matches(
        name,
        refine(best),
        matches,
        tracks,
        camera,
        config,
        refine_focal=refine_focal,
        seed=seed,
    )


class AnyMap(Protocol):
    """A map of either kind: stage Map, or `reconstruct.indoor.rgbd_map.RgbdMap`."""

    @property
    def reference(self) -> Path | None:
        """Where its poses were given; None: its frame is its own."""

    def fingerprint(self) -> str | None:
        """Of the map; None while it cannot be known."""

    def plan(self) -> Plan:
        """Whether it is up to date."""

    def points(self, extract: Extract) -> tuple[PointMap, Mapping[str, colmap.Camera]]:
        """The points that its images' keypoints see, and its cameras."""


class Localize:
    """The stage."""

    name = "localize"

    def __init__(
        self,
        context: Context,
        config: LocalizeConfig,
        extract: Extract,
        pair: Pair,
        match: Match,
        mapped: AnyMap,
        camera_config: cameras.CamerasConfig,
        verify: Mapping[str, Any],
    ) -> None:
        self.context = context
        self.config = config
        self.extract = extract
        self.pair = pair
        self.match = match
        self.map = mapped
        self.camera_config = camera_config
        self.verify = verify
        self.store = EstimateStore(context.workspace.localized)

    def wanted(self) -> dict[str, str] | None:
        """Query -> fingerprint of its estimate; None while stages before are incomplete."""
        mapped = self.map.fingerprint()
        if mapped is None or self.map.plan().state != "done":
            return None
        prints = self.extract.wanted()
        given = {query.name: query.intrinsics for query in self.context.dataset.queries}
        common = [self.config.identity(), self.verify, self.context.seed, mapped]
        shared = cameras.identity(self.camera_config, self.context.dataset)
        wanted = {}
        for name, others in self.pair.query_pairs().items():
            known = given[name]
            camera = shared if known is None else [known.model, known.size, known.params]
            pairs = [(min(name, other), max(name, other)) for other in others]
            matches = [[*pair, value] for pair, value in self.match.wanted(pairs).items()]
            wanted[name] = fingerprint("pose", common, name, camera, prints[name], matches)
        return wanted

    def fingerprint(self) -> str | None:
        """Of poses.txt: over those of all queries."""
        wanted = self.wanted()
        return None if wanted is None else fingerprint("poses", sorted(wanted.items()))

    def plan(self) -> Plan:
        """How many queries lack an estimate."""
        plan = plan_parts(self.wanted(), self.store.fingerprints(), "follows the map")
        if plan.state != "done":
            return plan
        if self.context.workspace.stamp(self.context.workspace.poses) != self.fingerprint():
            return Plan("stale", "poses.txt lacks queries that are localized", 0, plan.total)
        return plan

    def discard(self) -> None:
        """Drop all estimates."""
        self.store.discard(lambda key: True)

    def run(self) -> None:
        """Localize what is missing, and write poses.txt."""
        workspace = self.context.workspace
        wanted = self.wanted()
        if wanted is None:
            raise UsageError("queries need an up-to-date map: run the stages before localize first")
        made = make_parts(
            self.context,
            self.name,
            self.store,
            wanted,
            lambda todo: self._records(todo, wanted),
            unit="queries",
            shard=SHARD,
        )
        found = self.estimates()
        poses = {e.name: e.cam_from_world for e in found if e.cam_from_world is not None}
        workspace.set_stamp(workspace.poses, None)
        write_poses(workspace.poses, poses)
        workspace.set_stamp(workspace.poses, self.fingerprint())
        self.context.summary.figures[self.name] = _figures(found, made)

    def estimates(self) -> list[PoseEstimate]:
        """All estimates, failures too, sorted by name."""
        return [self.store.load(name) for name in sorted(self.store.fingerprints())]

    def _records(self, todo: list[str], wanted: Mapping[str, str]) -> Iterator[Record]:
        if not todo:
            return
        tracks, map_cameras = self.map.points(self.extract)
        refiner = self._refiner(tracks)
        pairs = self.pair.query_pairs()
        sizes = {name: self._size(name) for name in todo}
        assigned = cameras.assign(self.camera_config, self.context.dataset, sizes)
        for name in todo:
            camera_id = assigned.camera_ids[name]
            camera = assigned.cameras[camera_id]
            others = sorted(set(pairs[name]) & set(tracks.names))
            free = self.config.refine_focal
            keypoints = self._keypoints(name)
            matches = {o: self._matches(name, camera, o, map_cameras[o]) for o in others}
            photo = self.context.dataset.path(name)
            refine = refiner.query(photo, keypoints, matches, camera) if refiner else None
            found = localize_matches(
                name,
                keypoints,
                matches,
                tracks,
                camera,
                self.config,
                refine_focal=camera_id not in assigned.known if free is None else free,
                seed=self.context.seed,
                refine=refine,
            )
            yield EstimateStore.record(wanted[name], found)

    def _refiner(self, tracks: PointMap) -> QueryRefiner | None:
        if self.config.refine is None:
            return None
        return QueryRefiner(
            self.config.refine,
            tracks,
            self.context.dataset.root,
            max_error_px=self.config.max_error_px,
            device=self.context.device,
        )

    def _matches(
        self, query: str, camera: colmap.Camera, other: str, other_camera: colmap.Camera
    ) -> NDArray[np.uint32]:
        """(M, 2), the query's keypoint first."""
        first = query <= other
        rows = self.match.store.load((query, other) if first else (other, query))
        rows = rows if first else np.ascontiguousarray(rows[:, ::-1])
        if not self.config.verify_pairs:
            return rows
        return colmap.verify_pair(
            camera,
            self._keypoints(query).astype(np.float64),
            other_camera,
            self._keypoints(other).astype(np.float64),
            rows,
            seed=self.context.seed,
            **self.verify,
        )

    def _keypoints(self, name: str) -> FloatArray:
        return np.asarray(self.extract.store.read(name, only="keypoints")["keypoints"], np.float32)

    def _size(self, name: str) -> tuple[int, int]:
        width, height = self.extract.store.read(name, only="image_size")["image_size"][0].tolist()
        return width, height


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
