"""Values that somebody edited in a shard: of the right shape and type, but impossible."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reconstruct import colmap
from reconstruct.errors import ArtifactError
from reconstruct.refinement import PairAlignment
from reconstruct.storage.estimates import EstimateStore
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.geometries import GeometryStore
from reconstruct.storage.matches import MatchStore, pair_key
from reconstruct.types import LocalFeatures, Matches, PoseEstimate, TwoViewGeometry

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


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("descriptors", np.zeros((3, 4), np.uint64)),
        ("keypoints", np.full((3, 2), np.inf, np.float32)),
        ("keypoints", np.full((3, 2), "x", object)),
        ("scores", np.zeros(3, np.complex64)),
        ("scales", np.zeros(2, np.float32)),
    ],
)
def test_features_that_are_none(field: str, values: np.ndarray, tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    good = replace(LocalFeatures.empty((8, 6), 4), keypoints=np.zeros((3, 2), np.float32))
    good = replace(good, scales=np.ones(3, np.float32), scores=np.ones(3, np.float32))
    good = replace(good, descriptors=np.zeros((3, 4), np.uint8))
    fields = FeatureStore.record("a", "f", good).fields
    store._check("a", fields)
    with pytest.raises(ArtifactError, match=r"the features of 'a' are damaged.*--force extract"):
        store._check("a", {**fields, field: values})


@pytest.mark.parametrize("change", [{"config": "CALIBRATE"}, {"params": ((1.0,), (2.0,))}])
def test_a_geometry_that_colmap_does_not_know(change: dict[str, Any], tmp_path: Path) -> None:
    matches = np.array([[0, 0], [1, 1]], np.uint32)
    geometry = replace(TwoViewGeometry.empty(), inliers=matches, **change)
    camera = colmap.make_camera("SIMPLE_PINHOLE", [8, 4, 3], (8, 6))
    assignment = colmap.assign_cameras(
        {"a": (8, 6), "b": (8, 6)}, lambda _: camera, lambda _: camera, lambda name: name
    )
    with pytest.raises(ArtifactError, match=r"geometry of \('a', 'b'\) is damaged"):
        colmap.write_database(
            tmp_path / "database.db",
            assignment,
            lambda _: np.ones((2, 2), np.float32),
            [(("a", "b"), matches, geometry)],
        )


def test_scores_that_are_none(tmp_path: Path) -> None:
    store, pair = MatchStore(tmp_path), ("a", "b")
    indices = np.array([[0, 0], [1, 1]], np.uint32)
    for scores in (np.ones((2, 1), np.float32), np.ones(3, np.float32), np.ones(2, np.bool_)):
        store.write([MatchStore.record(pair, "f", Matches(indices=indices, scores=scores))])
        with pytest.raises(ArtifactError, match=r"the scores of .* are damaged.*--force match"):
            MatchStore(tmp_path).scores(pair)


def test_an_alignment_that_is_none() -> None:
    good = PairAlignment(
        displacement=np.zeros((2, 2), np.float32),
        affinity=np.tile(np.eye(2, dtype=np.float32), (2, 1, 1)),
        covariance=np.float32([[[4, 6], [6, 9]], [[-1, 0], [0, np.nan]]]),  # a line's, and none
        correlation=np.ones(2, np.float32),
        aligned=np.array([True, False]),
    )
    good.check()  # what is not accepted may be anything
    rounded = np.float32([[[4, 6.0001], [6.0001, 9]]] * 2)
    replace(good, covariance=rounded).check()
    for covariance in ([[4, 6.1], [6.1, 9]], [[-1, 0], [0, 1]], [[1, 0], [0, np.inf]]):
        with pytest.raises(ValueError, match="covariance"):
            replace(good, covariance=np.float32([covariance, covariance])).check()
    with pytest.raises(ValueError, match=r"displacement of shape \(3, 2\)"):
        replace(good, displacement=np.zeros((3, 2), np.float32)).check()
    with pytest.raises(ValueError, match="mask of int64"):
        replace(good, aligned=np.array([1, 0])).check()
