"""Candidate poses of a query in an RGB-D map, the one with most inliers first.

Direct PE has one candidate; Sparse and Dense PE have one for each image of the map (or for each
place), of those that the query is matched with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from reconstruct import colmap
from reconstruct.config import Section
from reconstruct.geometry import Float64
from reconstruct.indoor.homographies import HomographyConfig, verify_by_homographies
from reconstruct.types import FloatArray, PointMap


class PoseRansacConfig(Section):
    """What all ways to a pose share."""

    max_error: float = Field(0.012, gt=0)
    """Largest reprojection error of an inlier, as a share of the query's longer edge: 48 pixels of
    4032, 8 of 640."""
    min_inliers: int = Field(12, ge=4)
    """A pose with fewer is none."""
    max_trials: int = Field(10_000, ge=1)
    """Of RANSAC."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """cam_from_world: (3, 4). matches: keypoints of the query with a 3D point; inliers: those that
    agree. place: what the pose was estimated from, as `RgbdImages.place`. image: of the map; that
    with most inliers where there are several."""

    cam_from_world: Float64
    matches: int
    inliers: int
    place: str
    image: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lifted:
    """2D-3D matches: (M,) keypoint of the query, (M, 3) point, (M,) number of its image in
    ``images``."""

    keypoints: NDArray[np.int64]
    xyz: Float64
    source: NDArray[np.int64]
    images: Sequence[str]


def verify_matches(
    keypoints: FloatArray,
    others: Mapping[str, tuple[FloatArray, int]],
    matches: Mapping[str, NDArray[np.uint32]],
    config: HomographyConfig | None,
    seed: int,
) -> dict[str, NDArray[np.uint32]]:
    """The matches of each pair that lie on a few planes; all of them without ``config``.

    keypoints: (N, 2) of the query; others: of each image, and its longer edge in pixels.
    matches: image -> (M, 2), the query's keypoint first.
    """
    if config is None:
        return dict(matches)
    verified = {}
    for name, rows in matches.items():
        points, edge_px = others[name]
        pair = keypoints[rows[:, 0]], points[rows[:, 1]]
        limit = config.max_error * edge_px
        verified[name] = rows[verify_by_homographies(*pair, config, max_error_px=limit, seed=seed)]
    return verified


def best_matched(matches: Mapping[str, NDArray[np.uint32]], count: int) -> list[str]:
    """The ``count`` images with most matches, the most first; those without any left out."""
    order = sorted(matches, key=lambda name: (-len(matches[name]), name))
    return [name for name in order[:count] if len(matches[name])]


def lift(
    matches: Mapping[str, NDArray[np.uint32]], images: Sequence[str], points: PointMap
) -> Lifted:
    """2D-3D matches of a query with ``images``; keypoints without a point fall out."""
    keypoints, ids, source = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, int)]
    for number, name in enumerate(images):
        rows = matches[name].astype(np.int64)
        own = points.points(name)[rows[:, 1]]
        keypoints.append(rows[own >= 0, 0])
        ids.append(own[own >= 0])
        source.append(np.full(len(ids[-1]), number))
    return Lifted(
        keypoints=np.concatenate(keypoints),
        xyz=points.positions(np.concatenate(ids)),
        source=np.concatenate(source),
        images=images,
    )


def estimate(
    positions: FloatArray,
    lifted: Lifted,
    camera: colmap.Camera,
    places: Mapping[str, str],
    config: PoseRansacConfig,
    seed: int,
) -> tuple[Candidate | None, int]:
    """One LO-RANSAC over all matches; None if there is no pose. And the number of keypoints.

    positions: (N, 2) COLMAP pixels of the query. places: image -> place; the candidate's is that
    of most inliers.
    """
    count = len(np.unique(lifted.keypoints))
    if count < config.min_inliers:
        return None, count
    found = colmap.estimate_pose(
        positions[lifted.keypoints].astype(np.float64),
        lifted.xyz,
        camera,
        max_error_px=config.max_error * max(camera.width, camera.height),
        max_trials=config.max_trials,
        refine_focal=False,
        seed=seed,
    )
    if found is None:
        return None, count
    pose, mask = found[:2]
    inliers = len(np.unique(lifted.keypoints[mask]))
    if inliers < config.min_inliers:
        return None, count
    votes: dict[str, int] = {}
    by_image = np.bincount(lifted.source[mask], minlength=len(lifted.images))
    for name, number in zip(lifted.images, by_image, strict=True):
        votes[places[name]] = votes.get(places[name], 0) + int(number)
    place = min(votes, key=lambda key: (-votes[key], key))
    own = [i for i, name in enumerate(lifted.images) if places[name] == place]
    image = lifted.images[max(own, key=lambda i: (by_image[i], -i))]
    return Candidate(
        cam_from_world=pose, matches=count, inliers=inliers, place=place, image=image
    ), count


def image_candidates(
    positions: FloatArray,
    matches: Mapping[str, NDArray[np.uint32]],
    points: PointMap,
    camera: colmap.Camera,
    places: Mapping[str, str],
    config: PoseRansacConfig,
    *,
    count: int,
    pooled: bool,
    seed: int,
) -> tuple[list[Candidate], int]:
    """A candidate for each of the ``count`` images with most (verified) matches; ``pooled``: for
    each place, from all of its images. Sorted by inliers; and the most matches any group had."""
    images = best_matched(matches, len(matches) if pooled else count)
    groups = [[name] for name in images]
    if pooled:
        by_place: dict[str, list[str]] = {}
        for name in images:
            by_place.setdefault(places[name], []).append(name)
        groups = list(by_place.values())
    found, most = [], 0
    for group in groups:
        lifted = lift(matches, group, points)
        candidate, number = estimate(positions, lifted, camera, places, config, seed)
        most = max(most, number)
        if candidate is not None:
            found.append(candidate)
    found.sort(key=lambda c: (-c.inliers, c.image))
    return found[:count], most
