"""Is what an estimated pose says of its own errors true?"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from reconstruct import colmap
from reconstruct.colmap.pose_covariance import pose_covariance
from reconstruct.datasets.scene import look_at

CAMERA = colmap.make_camera("SIMPLE_RADIAL", (500.0, 320.0, 240.0, 0.05), (640, 480))
POSE = look_at((0.3, -6.0, 1.0), (0.0, 0.0, 0.5))


@pytest.mark.parametrize("sigmas_px", [(1.0,), (0.05, 0.05, 0.5)])
def test_errors_are_as_large_as_the_covariance_says(sigmas_px: tuple[float, ...]) -> None:
    normalised = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        points = rng.uniform(-1.5, 1.5, (150, 3))
        noise = rng.normal(size=(150, 2)) * rng.choice(sigmas_px, size=(150, 1))
        keypoints = colmap.project(CAMERA, POSE, points) + noise
        found = colmap.estimate_pose(
            keypoints,
            points,
            CAMERA,
            max_error_px=12.0,
            max_trials=1000,
            refine_focal=False,
            seed=0,
        )
        assert found is not None
        pose, _, covariance, _ = found
        assert covariance is not None
        turn = Rotation.from_matrix(pose[:, :3] @ POSE[:, :3].T).as_rotvec()
        error = np.concatenate([turn, pose[:, 3] - POSE[:, 3]])
        normalised.append(error @ np.linalg.solve(covariance, error) / 6)
    assert 0.75 < np.mean(normalised) < 1.35


def test_an_unknown_focal_length_leaves_the_distance_less_certain() -> None:
    points = np.random.default_rng(0).uniform(-1.5, 1.5, (50, 3))
    noise = np.random.default_rng(1).normal(size=(50, 2))
    known, unknown = (
        pose_covariance(CAMERA, POSE, points, noise, 2.0, refine_focal=focal)
        for focal in (False, True)
    )
    assert known is not None
    assert unknown is not None
    assert unknown[5, 5] > 2 * known[5, 5]


def test_two_points_hold_no_pose() -> None:
    points = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert pose_covariance(CAMERA, POSE, points, np.zeros((2, 2)), 1.0) is None
