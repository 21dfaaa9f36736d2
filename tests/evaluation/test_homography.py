"""Transfer errors, shares, corner errors: small numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from reconstruct.evaluation.homography import corner_error_px, share_within, transfer_errors_px

SHIFT = np.array([[1.0, 0.0, 10.0], [0.0, 1.0, -5.0], [0.0, 0.0, 1.0]])


def test_errors_are_distances_in_the_second_image() -> None:
    first = np.array([[0.0, 0.0], [20.0, 30.0]])
    second = np.array([[10.0, -5.0], [33.0, 29.0]])
    assert transfer_errors_px(first, second, SHIFT).tolist() == [0.0, 5.0]


def test_homography_maps_first_to_second_and_not_back() -> None:
    double = np.diag([2.0, 2.0, 1.0])
    assert transfer_errors_px(np.array([[3.0, 4.0]]), np.array([[6.0, 8.0]]), double) == [0.0]
    assert transfer_errors_px(np.array([[6.0, 8.0]]), np.array([[3.0, 4.0]]), double) > 1


def test_perspective_division() -> None:
    # (2, 0) -> (2, 0, 1 + 0.5 * 2) -> (1, 0).
    h = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.0, 1.0]])
    assert transfer_errors_px(np.array([[2.0, 0.0]]), np.array([[1.0, 0.0]]), h) == [0.0]


def test_points_at_infinity_or_behind_the_camera_are_infinitely_wrong() -> None:
    h = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-0.5, 0.0, 1.0]])
    first = np.array([[2.0, 0.0], [4.0, 0.0]])
    assert np.isinf(transfer_errors_px(first, first, h)).all()


def test_no_match_is_no_error_and_no_share() -> None:
    none = np.zeros((0, 2))
    errors = transfer_errors_px(none, none, SHIFT)
    assert errors.shape == (0,)
    assert share_within(errors, (1.0, 2.0)).tolist() == [0.0, 0.0]


def test_share_counts_the_threshold_itself() -> None:
    assert share_within([0.5, 1.0, 1.5, np.inf], (1.0, 2.0, 10.0)).tolist() == [0.5, 0.75, 0.75]


def test_one_match() -> None:
    assert share_within([2.0], (1.0, 2.0, 3.0)).tolist() == [0.0, 1.0, 1.0]


def test_corner_error_of_a_shift_is_its_length() -> None:
    assert corner_error_px(SHIFT, np.eye(3), (640, 480)) == pytest.approx(np.hypot(10, 5))
    assert corner_error_px(SHIFT, SHIFT, (640, 480)) == 0.0


def test_corner_error_of_a_doubling_is_the_mean_distance_of_the_corners() -> None:
    # Corner pixels' centres of a 2 x 1 image: (0.5, 0.5), (1.5, 0.5), each twice; doubled, they
    # move by their own length.
    expected = (np.hypot(0.5, 0.5) + np.hypot(1.5, 0.5)) / 2
    assert corner_error_px(np.diag([2.0, 2.0, 1.0]), np.eye(3), (2, 1)) == pytest.approx(expected)


def test_no_estimate_is_infinitely_wrong() -> None:
    assert corner_error_px(None, np.eye(3), (640, 480)) == np.inf
    degenerate = np.array([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 0.0]])
    assert corner_error_px(degenerate, np.eye(3), (640, 480)) == np.inf
