"""The pose of a query from its matches with images of a map: pure functions and their settings.

A query's matches with an image of the map become 2D-3D matches through the points that the
image's keypoints belong to; those of all its pairs are merged, and a camera pose is estimated by
LO-RANSAC. A query that fails has a status and no pose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from reconstruct import colmap
from reconstruct.config import NotIdentity, Section
from reconstruct.localization.refine_query import RefineQueryConfig
from reconstruct.matching.covisibility import covisibility_clusters
from reconstruct.types import FloatArray, PointMap, PoseEstimate


class LocalizeConfig(Section):
    """Section ``localize``."""

    max_error_px: float = Field(12.0, gt=0)
    """Largest reprojection error of an inlier."""
    pixels: Literal["input", "photo"] = "input"
    """What a pixel is in ``max_error_px``: a pixel of the photo as the extractor saw it, shrunk to
    its ``max_edge``, or of the photo as it is stored."""
    min_inliers: int = Field(12, ge=4)
    """A pose with fewer inliers is a failure; so is a query with fewer 2D-3D matches."""
    max_trials: int = Field(10_000, ge=1)
    """Largest number of RANSAC samples."""
    min_inlier_ratio: float = Field(0.1, ge=0, le=1)
    """Share of inliers to search for: no more samples are drawn than are needed to find it."""
    confidence: float = Field(0.99999, gt=0, lt=1)
    """Stop when, by the inlier ratio of the best pose so far, a sample without outliers has been
    drawn with this probability."""
    verify_pairs: bool = False
    """Keep of each pair only the matches that agree with one two-view geometry (section
    ``verify``) before they are merged."""
    clusters: bool = False
    """Localize separately against each group of paired images that see common points, and keep the
    pose with most inliers: for maps in which retrieval confuses several places."""
    refine_focal: bool | None = None
    """Estimate the query's focal length too. null: only where its intrinsics are not known."""
    refine: RefineQueryConfig | None = None
    """Move the keypoints of a query to agree with the photos of the map, then estimate its pose
    again. null: they stay as detected. Turn it on where section `refine` moved the map's keypoints:
    a query's keypoints have the same systematic errors as detected ones of the map, but not as
    refined ones."""
    rigs: Annotated[str | None, NotIdentity] = None
    """COLMAP's rig configuration (a JSON file) with the poses of all cameras: queries that a rig
    took at once, called the same after the prefixes of its cameras, are localized together. The map
    is in the unit of the configuration. null: photo by photo."""

    @model_validator(mode="after")
    def _check(self) -> LocalizeConfig:
        if self.rigs is not None and (self.clusters or self.refine_focal):
            raise ValueError("with `rigs` leave `clusters` and `refine_focal` out")
        return self


Matches2D3D = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Keypoint index and point id of each 2D-3D match, (M,) and (M,)."""


def lift_matches(
    matches: Mapping[str, NDArray[np.uint32]], points: Mapping[str, NDArray[np.int64]]
) -> Matches2D3D:
    """2D-3D matches of a query, merged over its pairs; each once, sorted.

    matches: image of the map -> (M, 2) indices, the query's keypoint first. points: image -> point
    id of each of its keypoints, -1 where it has none. A keypoint may have several points: RANSAC
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

    keypoints: (N, 2) COLMAP pixels. A keypoint counts as one inlier, however many of its points
    agree.
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
        min_inlier_ratio=config.min_inlier_ratio,
        confidence=config.confidence,
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
