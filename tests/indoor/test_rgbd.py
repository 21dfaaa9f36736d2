"""3D at keypoints: the half pixel, depth edges, what was not measured; ids of points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reconstruct.indoor.rgbd import RgbdPoints, sample_xyz

CENTER = np.zeros(3)


def plane(rows: int, columns: int, z: float = 5.0) -> NDArray[np.float32]:
    """Points that are their pixels' own COLMAP coordinates / 100, on a plane."""
    x, y = np.meshgrid(np.arange(columns) + 0.5, np.arange(rows) + 0.5)
    return np.stack([x / 100, y / 100, np.full_like(x, z)], axis=2).astype(np.float32)


def sample(xyz: NDArray[np.float32], *points: tuple[float, float]) -> NDArray[np.float64]:
    size = xyz.shape[1], xyz.shape[0]
    return sample_xyz(xyz, CENTER, np.array(points, np.float32).reshape(-1, 2), size)


def test_positions_are_colmap_pixels() -> None:
    found = sample(plane(6, 8), (0.5, 0.5), (3.0, 2.0), (4.25, 5.5), (7.5, 5.5))
    expected = [(0.005, 0.005), (0.03, 0.02), (0.0425, 0.055), (0.075, 0.055)]
    np.testing.assert_allclose(found[:, :2], expected, atol=1e-6)
    # Beyond the outermost centres there is nothing to interpolate with: the border pixel's point.
    np.testing.assert_allclose(sample(plane(6, 8), (0.1, 3.0))[0, :2], (0.005, 0.03), atol=1e-6)


def test_a_grid_of_another_size_covers_the_same_photo() -> None:
    found = sample_xyz(plane(6, 8), CENTER, np.array([[6.0, 4.0]]), (16, 12))
    np.testing.assert_allclose(found[0, :2], (0.03, 0.02), atol=1e-6)


def test_surfaces_are_not_mixed() -> None:
    xyz = plane(6, 8)
    xyz[:, 4:, 2] = 9.0  # a depth edge between columns 3 and 4, that is at x = 4
    depth = sample(xyz, (3.9, 3.0), (4.1, 3.0), (4.6, 3.0), (2.9, 3.0))[:, 2]
    np.testing.assert_array_equal(depth, [5.0, 9.0, 9.0, 5.0])


def test_a_slanted_plane_is_one_surface() -> None:
    xyz = plane(6, 8)
    xyz[..., 2] += 10 * xyz[..., 0]  # 84 degrees
    np.testing.assert_allclose(sample(xyz, (3.2, 3.0))[0, 2], 5.0 + 10 * 0.032, atol=1e-5)


def test_what_was_not_measured_is_left_out() -> None:
    xyz = plane(6, 8)
    xyz[2, 3] = np.nan
    found = sample(xyz, (3.5, 2.5), (3.9, 2.5), (4.1, 2.5), (-0.1, 2.0), (8.1, 2.0))
    assert np.isnan(found[[0, 1, 3, 4]]).all()
    # Its neighbour keeps the point of its own pixel, and does not reach for the missing one.
    np.testing.assert_allclose(found[2, :2], (0.045, 0.025), atol=1e-6)


def test_no_keypoints_and_an_unreadable_scan() -> None:
    assert sample(plane(6, 8)).shape == (0, 3)
    nothing = np.full((1, 1, 3), np.nan, np.float32)
    assert np.isnan(sample_xyz(nothing, CENTER, np.array([[3.0, 2.0]]), (8, 6))).all()


def test_ids_do_not_depend_on_what_was_asked_before() -> None:
    stored = {"b": np.array([[1.0, 2, 3], [np.nan, 0, 0]]), "a": np.array([[4.0, 5, 6]])}
    seen = {"b": np.array([[7.5, 8], [1, 1]], np.float32), "a": np.zeros((1, 2), np.float32)}
    load = seen.__getitem__, stored.__getitem__
    points, again = (RgbdPoints(["b", "a"], *load) for _ in range(2))
    ids = np.concatenate([points.points("a"), points.points("b")])
    np.testing.assert_array_equal(again.points("b"), ids[1:])
    assert points.names == ["a", "b"]
    assert ids[2] == -1
    np.testing.assert_array_equal(points.projected("b"), [[7.5, 8], [np.nan, np.nan]])
    np.testing.assert_array_equal(points.positions(ids[[1, 0]]), [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(points.image_numbers(ids[:2]), [0, 1])
    assert points.positions(np.zeros(0, np.int64)).shape == (0, 3)
