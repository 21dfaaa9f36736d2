"""The pose of a rig: cameras mounted together, whose photos were taken at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pycolmap
from numpy.typing import NDArray

from reconstruct.colmap.cameras import Camera
from reconstruct.colmap.estimation import project
from reconstruct.colmap.pose_refinement import refined


def estimate_rig_pose(
    points2d: Sequence[NDArray[np.float64]],
    points3d: Sequence[NDArray[np.float64]],
    cameras: Sequence[Camera],
    cams_from_rig: Sequence[NDArray[np.float64]],
    *,
    max_error_px: float,
    max_trials: int,
    seed: int,
    min_inlier_ratio: float = 0.1,
    confidence: float = 0.99999,
) -> tuple[NDArray[np.float64], list[NDArray[np.bool_]]] | None:
    """Generalized absolute pose by LO-RANSAC and refinement on the inliers (`pose_refinement`).

    Args:
        points2d: Of each photo its (M, 2) COLMAP pixels.
        points3d: Of each photo the (M, 3) matching world points, in the unit of the rig.
        cameras: Intrinsics of each photo.
        cams_from_rig: (3, 4) pose of each photo's camera in the rig.
        max_error_px: Largest reprojection error of an inlier.
        max_trials: Largest number of RANSAC samples.
        seed: Seed of RANSAC.
        min_inlier_ratio: No more samples are drawn than are needed to find this share of inliers.
        confidence: Stop when a sample without outliers was drawn with this probability.

    Returns:
        (3, 4) rig_from_world and of each photo the (M,) inlier mask; None if no pose is found.
    """
    options = pycolmap.RANSACOptions()
    options.max_error = max_error_px
    options.min_num_trials = min(options.min_num_trials, max_trials)
    options.max_num_trials = max_trials
    options.min_inlier_ratio = min_inlier_ratio
    options.confidence = confidence
    options.random_seed = seed
    counts = [len(points) for points in points2d]
    pixels, points = np.concatenate(points2d), np.concatenate(points3d)
    photo = np.repeat(np.arange(len(counts)), counts).tolist()
    rig = [pycolmap.Rigid3d(pose) for pose in cams_from_rig]
    found = pycolmap.estimate_and_refine_generalized_absolute_pose(
        pixels, points, photo, rig, list(cameras), options
    )
    if found is None:
        return None
    mask = np.asarray(found["inlier_mask"], np.bool_)
    inliers = np.split(mask, np.cumsum(counts)[:-1])

    def residuals(rig_from_world: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, 2) of the inliers of all photos."""
        in_rig = pycolmap.Rigid3d(rig_from_world)
        views = zip(points2d, points3d, cameras, rig, inliers, strict=True)
        return np.concatenate(
            [
                xy[own] - project(camera, (pose * in_rig).matrix(), xyz[own])
                for xy, xyz, camera, pose, own in views
            ]
        )

    found = refined(
        found,
        "rig_from_world",
        residuals,
        lambda pose, options: pycolmap.refine_generalized_absolute_pose(
            pose, pixels, points, mask, photo, rig, list(cameras), options
        ),
    )
    return found["rig_from_world"].matrix(), inliers
