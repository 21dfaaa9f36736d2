"""Consensus: matches of planes stay, scattered ones leave."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reconstruct.matching.consensus import consistent

SIZE = np.array([800.0, 600.0])


def turned(points: Any, angle_deg: float, scale: float) -> Any:
    angle = np.radians(angle_deg)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return (points - SIZE / 2) @ (scale * rotation.T) + SIZE / 2


@pytest.mark.parametrize(("angle_deg", "scale"), [(0, 1.0), (30, 0.6), (180, 1.5)])
@pytest.mark.parametrize("right", [150, 300])
def test_scattered_matches_leave(right: int, angle_deg: float, scale: float) -> None:
    rng = np.random.default_rng(0)
    first = rng.uniform(0, SIZE, (1000, 2))
    second = rng.uniform(0, SIZE, (1000, 2))
    # D2-Net's positions are off by a pixel or two.
    second[:right] = turned(first[:right], angle_deg, scale) + rng.normal(0, 1.5, (right, 2))
    kept = consistent(first, second)
    assert kept[:right].mean() > 0.9
    assert kept[right:].mean() < 0.02


def test_the_order_of_images_and_of_matches_does_not_count() -> None:
    rng = np.random.default_rng(4)
    first, second = rng.uniform(0, SIZE, (2, 500, 2))
    second[:200] = turned(first[:200], 20, 0.8) + rng.normal(0, 1.5, (200, 2))
    first[200:300] = first[:100]  # several matches at one place
    kept = consistent(first, second)
    assert 0 < kept.sum() < 500
    order = rng.permutation(500)
    np.testing.assert_array_equal(consistent(second[order], first[order]), kept[order])


def test_a_slanted_plane_is_no_similarity_and_stays() -> None:
    first = np.random.default_rng(1).uniform(0, SIZE, (400, 2))
    depth = 1.0 + 0.8 * first[:, 0] / SIZE[0]
    assert consistent(first, (first - SIZE / 2) / depth[:, None] + SIZE / 2).mean() > 0.97


def test_noise_alone_leaves_nothing() -> None:
    rng = np.random.default_rng(2)
    kept = consistent(rng.uniform(0, SIZE, (2000, 2)), rng.uniform(0, SIZE, (2000, 2)))
    assert kept.sum() <= 20


@pytest.mark.parametrize("count", [0, 1, 3])
def test_few_matches(count: int) -> None:
    points = np.arange(2.0 * count).reshape(-1, 2) * [10, 7]
    assert consistent(points, points).tolist() == [False] * count


def test_many_matches_on_one_place_do_not_vouch_for_each_other() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.uniform(0, SIZE, (300, 2)), rng.uniform(0, SIZE, (300, 2))
    first[:40], second[:40] = first[0], second[0]
    assert not consistent(first, second)[:40].any()
