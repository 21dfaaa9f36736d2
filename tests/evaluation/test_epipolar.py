"""Distances from epipolar lines: cameras side by side have horizontal ones."""

from __future__ import annotations

import numpy as np

from reconstruct.evaluation.epipolar import epipolar_distances_px

SIDE_BY_SIDE = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])


def test_distance_is_across_the_line() -> None:
    first = np.array([[10.0, 20.0], [10.0, 20.0]])
    second = np.array([[99.0, 20.0], [5.0, 23.0]])
    assert epipolar_distances_px(SIDE_BY_SIDE, first, second).tolist() == [0.0, 3.0]


def test_the_larger_of_both_sides_counts() -> None:
    # A second camera with twice the focal length: lines y2 = 2 y1.
    zoomed = np.diag([1.0, 0.5, 1.0]) @ SIDE_BY_SIDE
    found = epipolar_distances_px(zoomed, np.array([[0.0, 10.0]]), np.array([[0.0, 24.0]]))
    assert found.tolist() == [4.0]  # 4 px in the second image, 2 px in the first


def test_points_at_the_epipole_have_no_line() -> None:
    forward = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])  # epipoles at (0, 0)
    assert np.isinf(epipolar_distances_px(forward, np.zeros((1, 2)), np.ones((1, 2)))).all()


def test_no_matrix_and_no_correspondence() -> None:
    assert np.isinf(epipolar_distances_px(None, np.zeros((2, 2)), np.zeros((2, 2)))).all()
    assert epipolar_distances_px(SIDE_BY_SIDE, np.zeros((0, 2)), np.zeros((0, 2))).shape == (0,)
