"""The poses of queries that a rig took at once, estimated as one pose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reconstruct import colmap
from reconstruct.geometry import Float64
from reconstruct.localization.pose import Matches2D3D, lift_matches
from reconstruct.localization.query import MatchedQuery, PreparedQuery, QueryLocalizer
from reconstruct.types import FloatArray, PoseEstimate


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryFrames:
    """Which queries were taken at once by cameras that are mounted together.

    frames: query -> all of its frame, sorted, itself among them. cams_from_rig: query -> (3, 4)
    pose of its camera in the rig. identity: of the rigs; None: there are none.
    """

    frames: Mapping[str, tuple[str, ...]]
    cams_from_rig: Mapping[str, Float64]
    identity: str | None

    @classmethod
    def of(cls, rigs: colmap.Rigs | None, names: Sequence[str]) -> QueryFrames:
        """The frames of queries; without rigs, or of a photo that is in none, each by itself."""
        if rigs is None:
            return cls(frames={name: (name,) for name in names}, cams_from_rig={}, identity=None)
        members: dict[str, list[str]] = {}
        for name in sorted(names):
            members.setdefault(rigs.frame(name), []).append(name)
        return cls(
            frames={name: tuple(members[rigs.frame(name)]) for name in names},
            cams_from_rig={n: rigs.cam_from_rig(n) for n in names if rigs.sensor(n) is not None},
            identity=rigs.content,
        )


def localize_frame(
    localizer: QueryLocalizer, queries: Sequence[MatchedQuery], cams_from_rig: Sequence[Float64]
) -> list[PoseEstimate]:
    """The poses of the photos of a frame, by the matches of all of them.

    Their camera poses are one rig pose with the given poses in the rig, so that a photo without
    matches of its own has one too.

    Args:
        localizer: The map, and how queries are localized.
        queries: The photos, with known intrinsics.
        cams_from_rig: (3, 4) pose in the rig of each photo's camera, in the unit of the map.
    """
    prepared = [localizer.prepare(query) for query in queries]
    keypoints = [query.keypoints for query in queries]
    found = _estimate(localizer, prepared, keypoints, cams_from_rig)
    refine = [one.refine for one in prepared if one.refine is not None]
    if len(refine) < len(queries) or found[0].status != "ok":
        return found
    moved = [move(one) for move, one in zip(refine, found, strict=True)]
    return _estimate(localizer, prepared, moved, cams_from_rig)


def _estimate(
    localizer: QueryLocalizer,
    prepared: Sequence[PreparedQuery],
    keypoints: Sequence[FloatArray],
    cams_from_rig: Sequence[Float64],
) -> list[PoseEstimate]:
    config, tracks = localizer.config, localizer.tracks
    lifted = [
        lift_matches(one.matches, {name: tracks.points(name) for name in one.matches})
        for one in prepared
    ]
    failed = [
        PoseEstimate(name=one.query.name, status="too_few_matches", matches=_count(rows))
        for one, rows in zip(prepared, lifted, strict=True)
    ]
    if sum(one.matches for one in failed) < config.min_inliers:
        return failed
    found = colmap.estimate_rig_pose(
        [k[index].astype(np.float64) for k, (index, _) in zip(keypoints, lifted, strict=True)],
        [tracks.positions(ids).reshape(-1, 3) for _, ids in lifted],
        [one.query.camera for one in prepared],
        cams_from_rig,
        max_error_px=float(np.mean([one.config.max_error_px for one in prepared])),
        max_trials=config.max_trials,
        min_inlier_ratio=config.min_inlier_ratio,
        confidence=config.confidence,
        seed=localizer.seed,
    )
    inliers = [0] * len(prepared)
    if found is not None:
        inliers = [_count(rows, mask) for rows, mask in zip(lifted, found[1], strict=True)]
    if found is None or sum(inliers) < config.min_inliers:
        return [
            PoseEstimate(name=f.name, status="ransac_failed", matches=f.matches, inliers=count)
            for f, count in zip(failed, inliers, strict=True)
        ]
    rig_from_world = np.vstack([found[0], [0, 0, 0, 1]])
    return [
        PoseEstimate(
            name=one.query.name,
            status="ok",
            matches=_count(rows),
            inliers=count,
            cam_from_world=cam_from_rig @ rig_from_world,
            params=colmap.intrinsics(one.query.camera).params,
        )
        for one, rows, count, cam_from_rig in zip(
            prepared, lifted, inliers, cams_from_rig, strict=True
        )
    ]


def _count(lifted: Matches2D3D, mask: slice | np.ndarray = slice(None)) -> int:
    """Keypoints of 2D-3D matches: each counts once."""
    return len(np.unique(lifted[0][mask]))
