"""Geometry of one image or one pair: absolute pose, projection, verification."""

from __future__ import annotations

import numpy as np
import pycolmap
from numpy.typing import NDArray

from reconstruct.colmap.cameras import Camera
from reconstruct.colmap.two_view import TwoViewOptions, estimate_two_view_geometry


def estimate_pose(
    points2d: NDArray[np.float64],
    points3d: NDArray[np.float64],
    camera: Camera,
    *,
    max_error_px: float,
    max_trials: int,
    refine_focal: bool,
    seed: int,
    min_inlier_ratio: float = 0.1,
    confidence: float = 0.99999,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64] | None, Camera] | None:
    """Absolute pose by LO-RANSAC and refinement; None if none is found.

    points2d: (M, 2) COLMAP pixels. points3d: (M, 3). refine_focal: estimate the focal length too.
    min_inlier_ratio: no more samples are drawn than are needed to find this share of inliers, nor
    more than max_trials. confidence: stop when a sample without outliers was drawn with this
    probability. Both defaults are COLMAP's.
    Returns (3, 4) cam_from_world, (M,) inliers, (6, 6) covariance (rotation in the tangent space,
    then translation) or None where it does not exist, and the camera as refined.
    """
    estimation = pycolmap.AbsolutePoseEstimationOptions()
    estimation.estimate_focal_length = refine_focal
    estimation.ransac.max_error = max_error_px
    estimation.ransac.min_num_trials = min(estimation.ransac.min_num_trials, max_trials)
    estimation.ransac.max_num_trials = max_trials
    estimation.ransac.min_inlier_ratio = min_inlier_ratio
    estimation.ransac.confidence = confidence
    estimation.ransac.random_seed = seed
    refinement = pycolmap.AbsolutePoseRefinementOptions()
    refinement.refine_focal_length = refine_focal
    refined = pycolmap.Camera(camera.todict())  # it is changed in place
    found = pycolmap.estimate_and_refine_absolute_pose(
        points2d, points3d, refined, estimation, refinement, return_covariance=True
    )
    if found is None:
        return None
    covariance = found.get("covariance")
    inliers = np.asarray(found["inlier_mask"], np.bool_)
    return found["cam_from_world"].matrix(), inliers, covariance, refined


def project(
    camera: Camera, cam_from_world: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(N, 3) points of the world -> (N, 2) COLMAP pixels, NaN behind the camera."""
    in_camera = points @ cam_from_world[:, :3].T + cam_from_world[:, 3]
    return np.asarray(camera.img_from_cam(in_camera), np.float64).reshape(-1, 2)


def verify_pair(
    camera0: Camera,
    points0: NDArray[np.float64],
    camera1: Camera,
    points1: NDArray[np.float64],
    matches: NDArray[np.uint32],
    *,
    max_error_px: float,
    min_inliers: int,
    seed: int,
) -> NDArray[np.uint32]:
    """The (M, 2) ``matches`` of two images that agree with one two-view geometry, maybe none."""
    options = TwoViewOptions(max_error_px=max_error_px, min_inliers=min_inliers)
    return estimate_two_view_geometry(
        camera0, points0, camera1, points1, matches, options, seed=seed
    ).inliers
