"""Geometry of one image or one pair: absolute pose, projection, verification."""

from __future__ import annotations

import numpy as np
import pycolmap
from numpy.typing import NDArray

from reconstruct.colmap.cameras import Camera
from reconstruct.colmap.pose_covariance import pose_covariance
from reconstruct.colmap.pose_refinement import loss_px, refined


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
    """Absolute pose by LO-RANSAC and refinement on the inliers (`pose_refinement`).

    Args:
        points2d: (M, 2) COLMAP pixels.
        points3d: (M, 3) the matching world points.
        camera: Intrinsics; not changed.
        max_error_px: Largest reprojection error of an inlier.
        max_trials: Largest number of RANSAC samples.
        refine_focal: Estimate the focal length too.
        seed: Seed of RANSAC.
        min_inlier_ratio: No more samples are drawn than are needed to find this share of inliers.
        confidence: Stop when a sample without outliers was drawn with this probability. Both
            defaults are COLMAP's.

    Returns:
        (3, 4) cam_from_world, the (M,) inlier mask, the (6, 6) `pose_covariance` or None, and the
        refined camera; None if no pose is found.
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
    own = pycolmap.Camera(camera.todict())  # it is changed in place
    found = pycolmap.estimate_and_refine_absolute_pose(
        points2d, points3d, own, estimation, refinement
    )
    if found is None:
        return None
    inliers = np.asarray(found["inlier_mask"], np.bool_)

    def residuals(pose: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, 2) of the inliers."""
        return points2d[inliers] - project(own, pose, points3d[inliers])

    found = refined(
        found,
        "cam_from_world",
        residuals,
        lambda pose, options: pycolmap.refine_absolute_pose(
            pose, points2d, points3d, inliers, own, options
        ),
        refine_focal=refine_focal,
    )
    pose = found["cam_from_world"].matrix()
    errors = residuals(pose)
    covariance = pose_covariance(
        own, pose, points3d[inliers], errors, loss_px(errors), refine_focal=refine_focal
    )
    return pose, inliers, covariance, own


def project(
    camera: Camera, cam_from_world: NDArray[np.float64], points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Project (N, 3) world points into an image.

    Args:
        camera: Intrinsics.
        cam_from_world: (3, 4) pose.
        points: (N, 3) world points.

    Returns:
        (N, 2) COLMAP pixels, NaN for points behind the camera.
    """
    in_camera = points @ cam_from_world[:, :3].T + cam_from_world[:, 3]
    return np.asarray(camera.img_from_cam(in_camera), np.float64).reshape(-1, 2)
