"""The two-view geometry of one pair of images: which of its matches agree with each other."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

import numpy as np
import pycolmap
from numpy.typing import NDArray
from pydantic import Field

from reconstruct.colmap.cameras import Camera
from reconstruct.colmap.consensus import likely_inliers
from reconstruct.config import Section
from reconstruct.geometry import epipolar_errors_px, relative_pose
from reconstruct.types import ImagePair, TwoViewGeometry


class TwoViewOptions(Section):
    """Settings of `estimate_two_view_geometry`."""

    max_error_px: float = Field(4.0, gt=0)
    """Largest (Sampson) error of an inlier, in pixels as `pixels` says."""
    min_inliers: int = Field(15, ge=1)
    """A pair with fewer inliers has no geometry: it does not count as overlapping."""
    search: Literal["poselib", "colmap"] = "poselib"
    """Library that searches all matches for the geometry. ``colmap`` is COLMAP alone, as in its own
    program: slower for most pairs, and less reliable where most matches are wrong. COLMAP's own
    settings are 10,000 trials and a smallest inlier ratio of 0.25."""
    search_band: float = Field(0.375, gt=0, le=1)
    """While PoseLib searches, inliers are matches within this share of ``max_error_px``. In a wide
    band, wrong matches that happen to lie near its epipolar lines can let a wrong geometry win over
    the right one, whose own inliers lie closer."""
    max_trials: int = Field(20_000, ge=1)
    """Largest number of RANSAC samples drawn for a model."""
    min_inlier_ratio: float = Field(0.1, ge=0, le=1)
    """Share of inliers to search for: no more samples are drawn than are needed to find it."""
    confidence: float = Field(0.999, gt=0, lt=1)
    """Stop when, by the inlier ratio of the best model so far, a sample without outliers has been
    drawn with this probability."""


def pair_seed(seed: int, pair: ImagePair) -> int:
    """The seed of one pair, from that of the run: the same whatever other pairs there are."""
    text = json.dumps([seed, *pair])
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") >> 1  # COLMAP takes 31 bits


def estimate_two_view_geometry(
    camera0: Camera,
    keypoints0: NDArray[Any],
    camera1: Camera,
    keypoints1: NDArray[Any],
    matches: NDArray[np.uint32],
    options: TwoViewOptions,
    *,
    seed: int,
) -> TwoViewGeometry:
    """The two-view geometry of a pair of images: E, F or H, whichever COLMAP chooses.

    First `likely_inliers` searches for the matches near one epipolar geometry. COLMAP is given
    these alone, hardly any of which is an outlier, and decides between E, F and H and which matches
    are inliers. For cameras that are no pinholes, COLMAP searches by itself.

    Safe to call from several threads, which run side by side; the result depends on the arguments
    alone.

    Args:
        camera0, camera1: cameras of both images; equal ``camera_id`` means one and the same camera.
        keypoints0, keypoints1: (N, 2) COLMAP pixels.
        matches: (M, 2) keypoint indices, first column of the first image; M may be 0.
        options: thresholds and budget.
        seed: of the random samples, at least 0; see `pair_seed`.

    Returns:
        The geometry; without inliers where fewer than ``options.min_inliers`` agree.
    """
    points0, points1 = (np.asarray(k, np.float64) for k in (keypoints0, keypoints1))
    matches = np.ascontiguousarray(matches, np.uint32).reshape(-1, 2)
    if len(matches) < max(options.min_inliers, _SAMPLE):
        return TwoViewGeometry.empty()
    budget = _colmap_options(options, seed)
    likely = None
    if options.search == "poselib":
        likely = likely_inliers(
            (camera0, camera1),
            (points0[matches[:, 0]], points1[matches[:, 1]]),
            max_error_px=options.max_error_px,
            search_band=options.search_band,
            max_trials=options.max_trials,
            min_inlier_ratio=options.min_inlier_ratio,
            confidence=options.confidence,
            seed=seed,
        )
    if likely is not None:
        matches = matches[likely]
        # Most of these are inliers, or there is no geometry. COLMAP's 100 trials and more cost
        # most of a clear pair's time, and its search for a homography that a scene with depth
        # does not have costs the rest.
        budget.ransac.min_num_trials = 20
        budget.ransac.max_num_trials = 10_000
        budget.ransac.min_inlier_ratio = 0.5
    found = pycolmap.estimate_two_view_geometry(camera0, points0, camera1, points1, matches, budget)
    return from_colmap(found, options.min_inliers)


def geometry_from_poses(
    camera0: Camera,
    keypoints0: NDArray[Any],
    camera1: Camera,
    keypoints1: NDArray[Any],
    matches: NDArray[np.uint32],
    poses: tuple[NDArray[np.float64], NDArray[np.float64]],
    *,
    max_error_px: float,
    min_inliers: int,
) -> TwoViewGeometry:
    """The two-view geometry of images with known poses: the matches near their epipolar lines.

    Args:
        camera0, camera1: cameras of both images.
        keypoints0, keypoints1: (N, 2) COLMAP pixels.
        matches: (M, 2) keypoint indices, first column of the first image.
        poses: (3, 4) cam_from_world of both images.
        max_error_px: largest distance of a match from an epipolar line, in either image.
        min_inliers: a geometry with fewer inliers is none.
    """
    points = (keypoints0[matches[:, 0]], keypoints1[matches[:, 1]])
    rays = [
        np.asarray(camera.cam_from_img(np.asarray(xy, np.float64)))
        for camera, xy in zip((camera0, camera1), points, strict=True)
    ]
    pose = relative_pose(*poses)
    focal_px = (camera0.mean_focal_length(), camera1.mean_focal_length())
    inliers = matches[epipolar_errors_px(pose, rays[0], rays[1], focal_px) <= max_error_px]
    if len(inliers) < min_inliers:
        return TwoViewGeometry.empty()
    return TwoViewGeometry(config="CALIBRATED", inliers=inliers, cam2_from_cam1=pose)


def colmap_geometry(
    geometry: TwoViewGeometry, camera0: Camera, camera1: Camera
) -> pycolmap.TwoViewGeometry:
    """COLMAP's form of a geometry, to be written to its database.

    Raises ValueError for a relation or for parameters of cameras that COLMAP does not know.
    """
    result = pycolmap.TwoViewGeometry()
    result.config = pycolmap.TwoViewGeometryConfiguration(geometry.config)
    result.inlier_matches = np.ascontiguousarray(geometry.inliers, np.uint32).reshape(-1, 2)
    result.E, result.F, result.H = geometry.E, geometry.F, geometry.H
    if geometry.cam2_from_cam1 is not None:
        result.cam2_from_cam1 = pycolmap.Rigid3d(geometry.cam2_from_cam1)
    if geometry.params is not None:
        cameras = [
            pycolmap.Camera({**camera.todict(), "params": list(params)})
            for camera, params in zip((camera0, camera1), geometry.params, strict=True)
        ]
        if not all(camera.verify_params() for camera in cameras):
            raise ValueError(f"{geometry.params} are no parameters of its cameras")
        result.camera1, result.camera2 = cameras
    return result


_SAMPLE = 8
"""Seven matches determine a fundamental matrix, and one more can confirm it."""


def _colmap_options(options: TwoViewOptions, seed: int) -> pycolmap.TwoViewGeometryOptions:
    result = pycolmap.TwoViewGeometryOptions()
    result.min_num_inliers = options.min_inliers
    result.ransac.max_error = options.max_error_px
    result.ransac.min_inlier_ratio = options.min_inlier_ratio
    result.ransac.confidence = options.confidence
    result.ransac.min_num_trials = min(result.ransac.min_num_trials, options.max_trials)
    result.ransac.max_num_trials = options.max_trials
    result.ransac.random_seed = seed  # of the calling thread's own generator
    return result


def from_colmap(found: pycolmap.TwoViewGeometry, min_inliers: int) -> TwoViewGeometry:
    """A geometry from COLMAP's form; none where fewer than ``min_inliers`` agree."""
    inliers = np.asarray(found.inlier_matches, np.uint32).reshape(-1, 2)
    if len(inliers) < min_inliers:
        return TwoViewGeometry.empty()  # COLMAP's own verification keeps nothing of it either
    cameras = (found.camera1, found.camera2)
    pose = found.cam2_from_cam1
    return TwoViewGeometry(
        config=pycolmap.TwoViewGeometryConfiguration(found.config).name,
        inliers=inliers,
        E=found.E,
        F=found.F,
        H=found.H,
        cam2_from_cam1=None if pose is None else pose.matrix(),
        params=None
        if cameras[0] is None or cameras[1] is None
        else (tuple(cameras[0].params.tolist()), tuple(cameras[1].params.tolist())),
    )
