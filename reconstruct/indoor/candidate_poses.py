"""Candidate poses of a query in an RGB-D map, the one with most inliers first.

Direct pose estimation gives one candidate; sparse and dense give one for each image (or for each
place) of the map that the query is matched with.
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
    """Settings that all methods of estimating a pose have in common."""

    max_error: float = Field(0.012, gt=0)
    """Largest reprojection error of an inlier, as a share of the query's longer edge: 48 pixels of
    4032, 8 of 640."""
    min_inliers: int = Field(12, ge=4)
    """A pose with fewer inliers is rejected."""
    max_trials: int = Field(10_000, ge=1)
    """Largest number of RANSAC samples."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A candidate pose.

    Attributes:
        cam_from_world: (3, 4).
        matches: Number of keypoints of the query with a 3D point.
        inliers: How many of them agree with the pose.
        place: The place with most inliers, as `RgbdImages.place`.
        image: The image of that place with most inliers.
    """

    cam_from_world: Float64
    matches: int
    inliers: int
    place: str
    image: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lifted:
    """2D-3D matches of a query.

    Attributes:
        keypoints: (M,) keypoints of the query.
        xyz: (M, 3) points.
        source: (M,) index into ``images`` of the image that each point comes from.
        images: Names of the images.
    """

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
    """The matches of each pair that lie on one of a few planes.

    Args:
        keypoints: (N, 2) of the query.
        others: Image -> its keypoints, and its longer edge in pixels.
        matches: Image -> (M, 2) indices, the query's keypoint first.
        config: None: all matches are kept.
        seed: Seed of RANSAC.
    """
    if config is None:
        return dict(matches)
    verified = {}
    for name, indices in matches.items():
        points, edge_px = others[name]
        pair = keypoints[indices[:, 0]], points[indices[:, 1]]
        limit = config.max_error * edge_px
        verified[name] = indices[
            verify_by_homographies(*pair, config, max_error_px=limit, seed=seed)
        ]
    return verified


def best_matched(matches: Mapping[str, NDArray[np.uint32]], count: int) -> list[str]:
    """The ``count`` images with most matches, in this order; those without matches are left out."""
    order = sorted(matches, key=lambda name: (-len(matches[name]), name))
    return [name for name in order[:count] if len(matches[name])]


def lift(
    matches: Mapping[str, NDArray[np.uint32]], images: Sequence[str], points: PointMap
) -> Lifted:
    """2D-3D matches of a query.

    Args:
        matches: Image -> (M, 2) indices, the query's keypoint first.
        images: The images whose matches are used.
        points: The map.

    Returns:
        The matches; those whose keypoint has no 3D point are left out.
    """
    keypoints, ids, source = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], [np.zeros(0, int)]
    for number, name in enumerate(images):
        indices = matches[name].astype(np.int64)
        matched = points.points(name)[indices[:, 1]]
        keypoints.append(indices[matched >= 0, 0])
        ids.append(matched[matched >= 0])
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
    """One pose from all 2D-3D matches, by LO-RANSAC.

    Args:
        positions: (N, 2) COLMAP pixels of the query's keypoints.
        lifted: 2D-3D matches.
        camera: Intrinsics of the query.
        places: Image -> place.
        config: Settings.
        seed: Seed of RANSAC.

    Returns:
        The candidate, None if there is no pose; and the number of keypoints with a 3D point.
    """
    count = len(np.unique(lifted.keypoints))
    if count < config.min_inliers:
        return None, count
    solution = colmap.estimate_pose(
        positions[lifted.keypoints].astype(np.float64),
        lifted.xyz,
        camera,
        max_error_px=config.max_error * max(camera.width, camera.height),
        max_trials=config.max_trials,
        refine_focal=False,
        seed=seed,
    )
    if solution is None:
        return None, count
    pose, mask = solution[:2]
    inliers = len(np.unique(lifted.keypoints[mask]))
    if inliers < config.min_inliers:
        return None, count
    votes: dict[str, int] = {}
    by_image = np.bincount(lifted.source[mask], minlength=len(lifted.images))
    for name, number in zip(lifted.images, by_image, strict=True):
        votes[places[name]] = votes.get(places[name], 0) + int(number)
    place = min(votes, key=lambda key: (-votes[key], key))
    of_place = [i for i, name in enumerate(lifted.images) if places[name] == place]
    image = lifted.images[max(of_place, key=lambda i: (by_image[i], -i))]
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
    """Candidate poses from the images with most verified matches, one for each image or place.

    Args:
        positions: (N, 2) COLMAP pixels of the query's keypoints.
        matches: Image -> (M, 2) verified matches, the query's keypoint first.
        points: The map.
        camera: Intrinsics of the query.
        places: Image -> place.
        config: Settings.
        count: Number of images to try, and of candidates to keep.
        pooled: A candidate for each place, from all of its images, instead of one for each image.
        seed: Seed of RANSAC.

    Returns:
        Candidates by number of inliers, and the largest number of matches that any of them had.
    """
    images = best_matched(matches, len(matches) if pooled else count)
    groups = [[name] for name in images]
    if pooled:
        by_place: dict[str, list[str]] = {}
        for name in images:
            by_place.setdefault(places[name], []).append(name)
        groups = list(by_place.values())
    candidates, most = [], 0
    for group in groups:
        lifted = lift(matches, group, points)
        candidate, number = estimate(positions, lifted, camera, places, config, seed)
        most = max(most, number)
        if candidate is not None:
            candidates.append(candidate)
    candidates.sort(key=lambda c: (-c.inliers, c.image))
    return candidates[:count], most
