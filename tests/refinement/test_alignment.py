"""Known sub-pixel moves and affinities are found again, under other gain and bias."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders import AFFINITIES, SIZE, around_center, grid, photo
from numpy.typing import NDArray

from reconstruct.refinement import PairAlignment, RefineConfig, align_pair, build_pyramid
from reconstruct.types import ImageArray

CPU = torch.device("cpu")
CONFIG = RefineConfig()


def align(
    image0: ImageArray,
    image1: ImageArray,
    keypoints0: NDArray[np.float64],
    keypoints1: NDArray[np.float64],
    config: RefineConfig = CONFIG,
) -> PairAlignment:
    """Every keypoint matched with the one of the same index."""
    matches = np.repeat(np.arange(len(keypoints0), dtype=np.uint32)[:, None], 2, axis=1)
    pyramids = [build_pyramid(image, config.max_edge, CPU) for image in (image0, image1)]
    return align_pair(*pyramids, keypoints0, keypoints1, matches, config)


@pytest.mark.parametrize("name", AFFINITIES)
def test_displacement_and_affinity_are_found(name: str) -> None:
    affinity = AFFINITIES[name]
    shift = around_center(affinity) + np.array([0.3, -0.4])
    image0 = photo(np.eye(2), np.zeros(2))
    image1 = photo(affinity, shift, gain=0.6, bias=40)
    truth0 = grid(70)
    truth1 = truth0 @ affinity.T + shift
    noise = np.random.default_rng(1).uniform(-1.5, 1.5, truth1.shape)
    found = align(image0, image1, truth0, truth1 + noise)
    assert found.aligned.mean() > 0.95
    error = np.linalg.norm(found.displacement + noise, axis=1)[found.aligned]
    assert np.median(error) < 0.05
    # Contrast is evened out before warping, in neighbourhoods that a change of scale changes.
    assert np.quantile(error, 0.95) < (0.15 if name == "closer" else 0.05)
    assert np.median(np.abs(found.affinity - affinity)[found.aligned]) < 0.02
    assert np.all(found.correlation[found.aligned] > 0.9)


def test_both_directions_agree() -> None:
    affinity = AFFINITIES["closer"]
    shift = around_center(affinity)
    image0, image1 = photo(np.eye(2), np.zeros(2)), photo(affinity, shift)
    points0 = grid(80)
    points1 = points0 @ affinity.T + shift + [1.0, -0.5]
    there, back = align(image0, image1, points0, points1), align(image1, image0, points1, points0)
    both = there.aligned & back.aligned
    assert both.mean() > 0.9
    moved = np.einsum("mij,mj->mi", there.affinity, back.displacement)
    assert np.median(np.abs(there.displacement + moved)[both]) < 0.05


def test_photos_shrunk_to_max_edge_count_in_small_pixels() -> None:
    config = RefineConfig(max_edge=128)
    image0, image1 = photo(np.eye(2), np.zeros(2)), photo(np.eye(2), np.array([2.0, 0.0]))
    points = grid(90)
    matches = np.repeat(np.arange(len(points), dtype=np.uint32)[:, None], 2, axis=1)
    pyramids = [build_pyramid(image, config.max_edge, CPU) for image in (image0, image1)]
    found = align_pair(*pyramids, points, points, matches, config)
    assert pyramids[0].scale == (0.5, 0.5)
    np.testing.assert_allclose(np.median(found.displacement, axis=0), [1.0, 0.0], atol=0.05)


def test_flat_patches_are_not_aligned() -> None:
    flat = np.full((SIZE, SIZE, 3), 128, np.uint8)
    found = align(flat, flat, grid(70), grid(70))
    assert not found.aligned.any()
    assert np.isfinite(found.displacement).all()


def test_an_edge_fixes_one_direction_only() -> None:
    step = np.zeros((SIZE, SIZE, 3), np.uint8)
    step[:, SIZE // 2 :] = 200
    points = np.full((5, 2), SIZE / 2) + np.linspace(-20, 20, 5)[:, None] * [0, 1]
    found = align(step, step, points, points)
    sideways, along = found.covariance[:, 0, 0], found.covariance[:, 1, 1]
    assert not found.aligned.any()
    assert np.all(along > 1e6 * sideways)


def test_unlike_patches_are_not_aligned() -> None:
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8) for _ in range(2)]
    assert align(photos[0], photos[1], grid(70), grid(70)).aligned.mean() < 0.1


def test_edges_align_where_bright_and_dark_change_places() -> None:
    truth0, shift = grid(70), np.array([2.3, -1.4])
    image0, image1 = photo(np.eye(2), np.zeros(2)), 255 - photo(np.eye(2), shift)
    noise = np.random.default_rng(1).uniform(-1.5, 1.5, truth0.shape)
    pair = image0, image1, truth0, truth0 + shift + noise
    assert not align(*pair).aligned.any()
    edges = RefineConfig(min_edge_correlation=0.4)
    found = align(*pair, edges)
    assert found.aligned.mean() > 0.9
    assert np.median(np.linalg.norm(found.displacement + noise, axis=1)[found.aligned]) < 0.1
    assert np.linalg.eigvalsh(found.covariance[found.aligned]).min() >= edges.edge_sigma_px**2
    # What grey values align stays as it is, and what is unlike stays unaligned.
    for same in (
        align(image0, image0, truth0, truth0),
        align(image0, image0, truth0, truth0, edges),
    ):
        assert same.aligned.all()
        assert np.linalg.eigvalsh(same.covariance).max() < 0.01
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8) for _ in range(2)]
    assert align(photos[0], photos[1], truth0, truth0, edges).aligned.mean() < 0.2


def test_keypoints_at_the_border_keep_their_place() -> None:
    image = photo(np.eye(2), np.zeros(2))
    corners = np.array([[0.0, 0.0], [SIZE, 0.0], [0.0, SIZE], [SIZE, SIZE], [SIZE / 2, 0.5]])
    found = align(image, image, corners, corners)
    assert not found.aligned[:4].any()
    for values in (found.displacement, found.affinity, found.covariance, found.correlation):
        assert np.isfinite(values).all()


def test_no_match() -> None:
    image = photo(np.eye(2), np.zeros(2))
    found = align(image, image, np.zeros((0, 2)), np.zeros((0, 2)))
    assert found.displacement.shape == (0, 2)
    assert found.affinity.shape == (0, 2, 2)
    assert found.aligned.shape == (0,)


def test_the_size_of_chunks_changes_nothing() -> None:
    image0, image1 = photo(np.eye(2), np.zeros(2)), photo(np.eye(2), np.array([1.2, 0.7]))
    points = grid(70)
    matches = np.repeat(np.arange(len(points), dtype=np.uint32)[:, None], 2, axis=1)
    pyramids = [build_pyramid(image, None, CPU) for image in (image0, image1)]
    small, large = (
        align_pair(*pyramids, points, points, matches, RefineConfig(chunk=chunk))
        for chunk in (5, 1024)
    )
    np.testing.assert_allclose(small.displacement, large.displacement, atol=1e-3)
    np.testing.assert_array_equal(small.aligned, large.aligned)


def test_the_same_again_is_equal_bit_by_bit() -> None:
    image0, image1 = photo(np.eye(2), np.zeros(2)), photo(np.eye(2), np.array([1.2, 0.7]))
    first, second = (align(image0, image1, grid(70), grid(70)) for _ in range(2))
    np.testing.assert_array_equal(first.displacement, second.displacement)
    np.testing.assert_array_equal(first.covariance, second.covariance)
