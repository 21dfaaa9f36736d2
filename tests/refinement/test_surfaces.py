"""Planes through points, and the warps that they induce between photos."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reconstruct.geometry import apply_homography
from reconstruct.refinement.surfaces import patch_affinities, projected_tangents, surface_normals


def toward(count: int) -> NDArray[np.float64]:
    return np.tile([0.0, 0.0, 1.0], (count, 1))


def test_normals_of_two_walls_and_of_a_stray_point() -> None:
    rng = np.random.default_rng(0)
    flat = np.column_stack([rng.uniform(0, 1, (80, 2)), np.zeros(80)])
    steep = np.column_stack([rng.uniform(0, 1, (80, 2)), np.zeros(80)])
    steep[:, 2] = steep[:, 0]  # 45 degrees
    steep += (5.0, 0.0, 0.0)
    points = np.concatenate([flat, steep, [[0.5, 0.5, 0.9]]])
    points[:160] += rng.normal(0, 1e-3, (160, 3))
    normals = surface_normals(points, toward(161), 12)
    assert np.median(normals[:80] @ [0, 0, 1]) > 0.999
    assert np.median(normals[80:160] @ [-(0.5**0.5), 0, 0.5**0.5]) > 0.999
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)


def test_without_a_plane_it_faces_the_cameras() -> None:
    few = np.eye(3)
    np.testing.assert_array_equal(surface_normals(few, toward(3), 12), toward(3))
    assert surface_normals(np.zeros((0, 3)), toward(0), 12).shape == (0, 3)
    line = np.column_stack([np.linspace(0, 1, 9), np.zeros((9, 2))])
    np.testing.assert_allclose(surface_normals(line, toward(9), 4), toward(9), atol=1e-6)
    edge_on = np.column_stack([np.zeros(30), np.random.default_rng(1).uniform(0, 1, (30, 2))])
    np.testing.assert_allclose(surface_normals(edge_on, toward(30), 12), toward(30))


def test_a_patch_maps_by_the_homography_of_its_plane() -> None:
    """The affinity is the derivative of H = R + t n^T / d at the point."""
    angle = 0.4
    rotation = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    translation = np.array([-1.5, 0.2, 0.3])
    normal, point = np.array([0.3, -0.2, -0.9]), np.array([0.2, 0.1, 4.0])
    normal /= np.linalg.norm(normal)
    homography = rotation + np.outer(translation, normal) / (normal @ point)

    def first(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return x[:, :2] / x[:, 2:]

    def second(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return first(x @ rotation.T + translation)

    plane = point[None], normal[None], np.array([4.0])
    affinity, possible = patch_affinities(
        projected_tangents(first, *plane), projected_tangents(second, *plane)
    )
    at = first(point[None])[0]
    steps = at + 1e-4 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    mapped = apply_homography(homography, steps)
    expected = np.stack([mapped[0] - mapped[1], mapped[2] - mapped[3]], axis=-1) / 2e-4
    assert possible.all()
    np.testing.assert_allclose(affinity[0], expected, atol=1e-4)


def test_impossible_views_are_named() -> None:
    eye = np.eye(2)
    mirrored = np.diag([1.0, -1.0])
    flat = np.diag([1.0, 0.0])
    first = np.stack([eye, eye, flat, eye, eye])
    second = np.stack([2 * eye, mirrored, eye, 20 * eye, np.full((2, 2), np.nan)])
    affinity, possible = patch_affinities(first, second)
    assert possible.tolist() == [True, False, False, False, False]
    np.testing.assert_allclose(affinity[0], 2 * eye)
    np.testing.assert_array_equal(affinity[1:], np.tile(eye, (4, 1, 1)))
    assert patch_affinities(np.zeros((0, 2, 2)), np.zeros((0, 2, 2)))[1].shape == (0,)
