from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconstruct.geometry import (
    angle_between_deg,
    apply_homography,
    fit_size,
    projection_center,
    quaternion,
    relative_pose,
    rescale_points,
    rotation_angle_deg,
    rotation_matrix,
)


@pytest.mark.parametrize(
    ("size", "max_edge", "max_sum", "expected"),
    [
        ((1600, 1200), 1600, 2800, (1600, 1200)),
        ((1601, 1601), 1600, None, (1600, 1600)),
        ((3200, 1000), 1600, 2800, (1600, 500)),
        ((2000, 2000), 1600, 2800, (1400, 1400)),
        ((1000, 3), 100, None, (100, 1)),
        ((100, 50), None, None, (100, 50)),
        ((999, 333), 500, None, (500, 166)),
        ((10, 10), 1600, 2800, (10, 10)),
    ],
)
def test_fit_size(
    size: tuple[int, int], max_edge: int | None, max_sum: int | None, expected: tuple[int, int]
) -> None:
    assert fit_size(size, max_edge, max_sum) == expected


def test_corners_and_centres_stay_when_an_image_is_resized() -> None:
    points = [[0, 0], [8, 4], [0.5, 0.5], [4, 2]]
    assert rescale_points(np.array(points), (8, 4), (4, 8)).tolist() == [
        [0, 0],
        [4, 8],
        [0.25, 1.0],
        [2, 4],
    ]
    assert rescale_points(np.zeros((0, 2)), (8, 4), (4, 8)).shape == (0, 2)


PIXELS = st.floats(-1e5, 1e5, allow_subnormal=False)  # which have no relative accuracy
SIZES = st.tuples(st.integers(1, 20_000), st.integers(1, 20_000))


@given(st.lists(st.tuples(PIXELS, PIXELS), max_size=5), SIZES, SIZES, SIZES)
def test_resizing_in_two_steps_is_resizing_in_one(
    points: list[tuple[float, float]],
    first: tuple[int, int],
    second: tuple[int, int],
    third: tuple[int, int],
) -> None:
    rows = np.array(points).reshape(-1, 2)
    twice = rescale_points(rescale_points(rows, first, second), second, third)
    np.testing.assert_allclose(twice, rescale_points(rows, first, third), rtol=1e-12)
    np.testing.assert_allclose(rescale_points(twice, third, first), rows, rtol=1e-12)
    np.testing.assert_allclose(rescale_points(np.array([first]), first, third), [third])


@given(st.tuples(*[st.floats(-1, 1)] * 4))
def test_quaternion_and_matrix_are_one_rotation(values: tuple[float, float, float, float]) -> None:
    q = np.array(values)
    if np.linalg.norm(q) < 1e-3:
        return
    matrix = rotation_matrix(q)
    w, x, y, z = q / np.linalg.norm(q)
    expected = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    np.testing.assert_allclose(matrix, expected, atol=1e-12)
    found = quaternion(matrix)
    assert found[0] >= 0
    np.testing.assert_allclose(rotation_matrix(found), matrix, atol=1e-12)


@pytest.mark.parametrize("angle", [0.0, 1e-7, 1.0, 90.0, 179.9999, 180.0])
def test_rotation_angle_is_exact_near_its_ends(angle: float) -> None:
    a = np.radians(angle)
    rotation = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    assert rotation_angle_deg(rotation) == pytest.approx(angle, rel=1e-9, abs=1e-12)


def test_angle_between() -> None:
    assert angle_between_deg([1, 0, 0], [0, 3, 0]) == pytest.approx(90)
    assert angle_between_deg([1, 1, 1], [-2, -2, -2]) == pytest.approx(180)
    assert np.isnan(angle_between_deg([0, 0, 0], [1, 0, 0]))


def test_relative_pose_leads_from_camera_to_camera() -> None:
    quarter = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    a = np.column_stack([np.eye(3), [-1, 0, 0]])  # at (1, 0, 0)
    b = np.column_stack([quarter, -quarter @ [0, 2, 0]])  # at (0, 2, 0)
    np.testing.assert_allclose(projection_center(a), [1, 0, 0])
    np.testing.assert_allclose(projection_center(b), [0, 2, 0])
    point = np.array([3, -4, 5, 1.0])
    b_from_a = relative_pose(a, b)
    np.testing.assert_allclose(b_from_a[:, :3] @ (a @ point) + b_from_a[:, 3], b @ point)
    np.testing.assert_allclose(relative_pose(a, a), np.eye(3, 4), atol=1e-15)


def test_apply_homography() -> None:
    shift_and_halve = np.array([[1, 0, 4], [0, 1, 6], [0, 0, 2.0]])
    assert apply_homography(shift_and_halve, [[0, 0], [2, 4]]).tolist() == [[2, 3], [3, 5]]
    assert apply_homography(shift_and_halve, np.zeros((0, 2))).shape == (0, 2)
    horizon = [
        [1, 0, 0],
        [0, 1, 0],
        [1, 0, 0],
    ]  # x = 0 to infinity, x < 0 behind
    mapped = apply_homography(np.array(horizon), [[2, 4], [0, 1], [-1, 1]])
    np.testing.assert_array_equal(mapped, [[1, 2], [np.nan, np.nan], [np.nan, np.nan]])
