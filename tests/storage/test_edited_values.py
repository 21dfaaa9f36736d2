"""Values that somebody edited in a shard: of the right shape and type, but impossible."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from reconstruct.errors import ArtifactError
from reconstruct.refinement import PairAlignment
from reconstruct.storage.estimates import EstimateStore
from reconstruct.storage.geometries import GeometryStore
from reconstruct.storage.matches import pair_key
from reconstruct.types import PoseEstimate, TwoViewGeometry

POSES = {
    "mirrored": np.diag([1.0, 1, -1, 0])[:3],
    "scaled": 2 * np.eye(3, 4),
    "not finite": np.full((3, 4), np.nan),
    "huge": np.full((3, 4), 1e300),
}


@pytest.mark.parametrize("pose", POSES.values(), ids=POSES)
def test_a_pose_that_is_none(pose: np.ndarray, tmp_path: Path) -> None:
    estimates = EstimateStore(tmp_path / "localized")
    good = PoseEstimate(
        name="a", status="ok", matches=9, inliers=8, cam_from_world=np.eye(3, 4), covariance=None
    )
    bad = replace(good, name="b", cam_from_world=pose)
    estimates.write([EstimateStore.record("f", estimate) for estimate in (good, bad)])
    np.testing.assert_array_equal(estimates.load("a").cam_from_world, np.eye(3, 4))
    with pytest.raises(ArtifactError, match=r"'b' is damaged .*no rotation"):
        estimates.load("b")

    geometries = GeometryStore(tmp_path / "geometries")
    geometry = replace(TwoViewGeometry.empty(), cam2_from_cam1=pose)
    geometries.write([GeometryStore.record(pair_key(("a", "b")), "f", geometry)])
    with pytest.raises(ArtifactError, match=r"is damaged .*no rotation"):
        geometries.load(("a", "b"))


def test_an_alignment_that_is_none() -> None:
    good = PairAlignment(
        displacement=np.zeros((2, 2), np.float32),
        affinity=np.tile(np.eye(2, dtype=np.float32), (2, 1, 1)),
        covariance=np.float32([[[4, 6], [6, 9]], [[-1, 0], [0, np.nan]]]),  # a line's, and none
        correlation=np.ones(2, np.float32),
        aligned=np.array([True, False]),
    )
    good.check()  # what is not accepted may be anything
    for covariance in ([[4, 6.1], [6.1, 9]], [[-1, 0], [0, 1]], [[1, 0], [0, np.inf]]):
        with pytest.raises(ValueError, match="covariance"):
            replace(good, covariance=np.float32([covariance, covariance])).check()
    with pytest.raises(ValueError, match=r"displacement of shape \(3, 2\)"):
        replace(good, displacement=np.zeros((3, 2), np.float32)).check()
    with pytest.raises(ValueError, match="mask of int64"):
        replace(good, aligned=np.array([1, 0])).check()
