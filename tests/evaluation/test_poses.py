from __future__ import annotations

import numpy as np
import pytest

from reconstruct.errors import EstimationError
from reconstruct.evaluation.poses import (
    area_under_recall,
    pose_metrics,
    relative_pose_error_deg,
    scene_errors_deg,
    similarity,
    transform_pose,
)
from reconstruct.geometry import Float64, projection_center
from reconstruct.stages.evaluate import aligned

INF = float("inf")


def turn_z(angle_deg: float) -> Float64:
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])


def camera(center: tuple[float, float, float], angle_deg: float = 0.0) -> Float64:
    rotation = turn_z(angle_deg)
    return np.column_stack([rotation, -rotation @ center])


SCENE = {
    "a": camera((0, 0, 0)),
    "b": camera((1, 0, 0), 20),
    "c": camera((0, 2, 0), -70),
    "d": camera((1, 1, 3), 5),
}


@pytest.mark.parametrize(
    ("errors", "threshold", "expected"),
    [
        ([], 5, 0.0),
        ([INF, INF], 5, 0.0),
        ([0.0, 0.0], 5, 1.0),
        # up to recall 1 at error 1: a triangle of 1/2; then flat up to 2: (0.5 + 1) / 2
        ([1.0], 2, 0.75),
        # (0, 0) - (1, 0.5) - (3, 1) - (4, 1): 0.25 + 1.5 + 1, over 4
        ([3.0, 1.0], 4, 2.75 / 4),
        # cut at 2, where the curve is flat at the last recall: 0.25 + 0.5, over 2
        ([3.0, 1.0], 2, 0.75 / 2),
        # one of two is never recalled
        ([1.0, INF], 2, 0.375),
        ([9.0], 5, 0.0),
    ],
)
def test_area_under_recall_by_hand(errors: list[float], threshold: float, expected: float) -> None:
    assert area_under_recall(errors, [threshold]) == pytest.approx([expected])


def test_areas_at_several_thresholds() -> None:
    assert area_under_recall([1.0], [1, 2, 4]) == pytest.approx([0.0, 0.75, 0.875])


def test_relative_pose_error_is_the_larger_angle() -> None:
    ahead = np.column_stack([np.eye(3), [1, 0, 0]])
    assert relative_pose_error_deg(ahead, ahead) == 0
    turned = np.column_stack([turn_z(3), [5, 0, 0]])
    assert relative_pose_error_deg(turned, ahead) == pytest.approx(3)
    aside = np.column_stack([turn_z(3), turn_z(7) @ [2, 0, 0]])
    assert relative_pose_error_deg(aside, ahead) == pytest.approx(7)
    behind = np.column_stack([np.eye(3), [-1, 0, 0]])
    assert relative_pose_error_deg(behind, ahead) == pytest.approx(180)
    still = np.column_stack([np.eye(3), [0, 0, 0]])
    assert relative_pose_error_deg(aside, still) == pytest.approx(3), "no direction to compare"
    assert relative_pose_error_deg(still, ahead) == 180, "a motion that was not found"


def test_an_unregistered_image_makes_its_pairs_infinite() -> None:
    estimated = {name: SCENE[name] for name in "abc"} | {"stranger": SCENE["d"]}
    errors = scene_errors_deg(estimated, SCENE)
    assert errors == pytest.approx([0, 0, INF, 0, INF, INF], abs=1e-9)  # ab ac ad bc bd cd
    metrics = pose_metrics(estimated, SCENE)
    assert (metrics.registered, metrics.reference, metrics.missing) == (3, 4, ["d"])
    assert metrics.position_max == 0
    assert metrics.auc_percent == pytest.approx({"1": 50, "3": 50, "5": 50})


def test_errors_by_hand() -> None:
    estimated = SCENE | {"a": camera((0, 0, 0.4), 2), "d": camera((1, 1, 3.2), 5)}
    metrics = pose_metrics(estimated, SCENE)
    assert metrics.position_mean == pytest.approx(0.15)
    assert metrics.position_median == pytest.approx(0.1)
    assert metrics.position_max == pytest.approx(0.4)
    assert metrics.rotation_mean_deg == pytest.approx(0.5)
    assert metrics.rotation_median_deg == pytest.approx(0, abs=1e-9)
    assert metrics.rotation_max_deg == pytest.approx(2)


def test_no_common_image() -> None:
    for estimated in ({}, {"x": SCENE["a"]}):
        with pytest.raises(EstimationError, match="no image of the reference"):
            pose_metrics(estimated, SCENE)


@pytest.mark.parametrize("names", ["abc", "abcd"])
def test_alignment_recovers_a_similarity(names: str) -> None:
    reference = {name: SCENE[name] for name in names}  # a, b, c lie in the plane z = 0
    rotation = turn_z(50) @ np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0.0]])
    moved = {n: transform_pose(p, 0.1, rotation, np.array([5, 6, 7])) for n, p in SCENE.items()}
    metrics = pose_metrics(aligned(moved, reference), SCENE)
    assert metrics.position_max < 1e-12
    assert metrics.rotation_max_deg < 1e-5
    assert metrics.registered == 4, "images without a reference are moved along"


def test_similarity_by_hand() -> None:
    source = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.0]])
    target = np.array([[1, 1, 1], [1, 3, 1], [-1, 1, 1.0]])
    scale, rotation, translation = similarity(source, target)
    assert scale == pytest.approx(2)
    np.testing.assert_allclose(rotation, turn_z(90), atol=1e-12)
    np.testing.assert_allclose(translation, [1, 1, 1], atol=1e-12)


def test_a_mirror_image_is_not_aligned_by_mirroring() -> None:
    source = np.array([projection_center(pose) for pose in SCENE.values()])
    rotation = similarity(source, source * [1, 1, -1])[1]
    assert np.linalg.det(rotation) == pytest.approx(1)


@pytest.mark.parametrize(
    "points",
    [np.zeros((0, 3)), np.zeros((2, 3)), np.zeros((4, 3)), np.outer(np.arange(5), [1, 2, 3.0])],
)
def test_what_fixes_no_similarity(points: Float64) -> None:
    with pytest.raises(EstimationError, match="align"):
        similarity(points, points)
