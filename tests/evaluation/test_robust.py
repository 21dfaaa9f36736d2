"""Robust estimates: right among outliers, repeatable, and nothing where nothing can be known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from reconstruct.evaluation.epipolar import epipolar_distances_px
from reconstruct.evaluation.homography import corner_error_px, transfer_errors_px
from reconstruct.evaluation.robust import estimate_fundamental, estimate_homography

TILT = np.array([[0.9, 0.1, 30.0], [-0.05, 1.1, -10.0], [1e-4, 2e-4, 1.0]])
BOTH = [estimate_homography, estimate_fundamental]
Points = np.ndarray[Any, np.dtype[np.float64]]


def plane(count: int = 200) -> tuple[Points, Points]:
    first = np.random.default_rng(0).uniform(0, 600, (count, 2))
    mapped = np.column_stack([first, np.ones(count)]) @ TILT.T
    return first, mapped[:, :2] / mapped[:, 2:]


def scene(count: int = 200) -> tuple[Points, Points]:
    points = np.random.default_rng(0).uniform((-2, -2, 4), (2, 2, 8), (count, 3))

    def project(offset: float) -> Points:
        moved = points + offset * np.array([1.0, 0.2, 0.3])
        return 400 * moved[:, :2] / moved[:, 2:] + 300

    return project(0.0), project(1.0)


def with_outliers(first: Points, second: Points) -> tuple[Points, Points]:
    """Half of the matches are wrong; the right ones are 0.3 px off."""
    rng = np.random.default_rng(1)
    wrong = rng.uniform(0, 600, second.shape)
    noisy = second + rng.normal(0, 0.3, second.shape)
    return first, np.where(np.arange(len(first))[:, None] % 2, wrong, noisy)


def test_homography_among_outliers() -> None:
    found = estimate_homography(*with_outliers(*plane()), max_error_px=1.0, seed=0)
    assert found is not None
    assert transfer_errors_px(*plane(), found).max() < 0.5


def test_exact_matches_count_among_inexact_ones() -> None:
    # As refinement leaves them: most right matches are off by 0.3 px, the others by pixels.
    errors = []
    for trial in range(4):
        rng = np.random.default_rng(trial)
        first, second = plane(800)
        sigma = np.where(rng.random((800, 1)) < 0.3, 4.0, 0.3)
        noisy = second + sigma * rng.normal(size=second.shape)
        noisy = np.where(rng.random((800, 1)) < 0.3, rng.uniform(0, 600, second.shape), noisy)
        for seed in range(2):
            found = estimate_homography(first, noisy, max_error_px=1.0, seed=seed)
            errors.append(corner_error_px(found, TILT, (600, 600)))
    assert np.mean(errors) < 0.2  # MAGSAC++ alone: 0.26


def test_fundamental_among_outliers() -> None:
    found = estimate_fundamental(*with_outliers(*scene()), max_error_px=1.0, seed=0)
    assert np.median(epipolar_distances_px(found, *scene())) < 0.5


@pytest.mark.parametrize("estimate", BOTH)
def test_equal_matches_give_equal_results(estimate: Callable[..., Points]) -> None:
    matches = with_outliers(*scene())
    results = [estimate(*matches, max_error_px=1.0, seed=3) for _ in range(3)]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize("estimate", BOTH)
@pytest.mark.parametrize("count", [0, 1, 3, 4, 7, 8, 9])
def test_few_matches_are_no_error(estimate: Callable[..., Points | None], count: int) -> None:
    first, second = plane(count)
    found = estimate(first, second, max_error_px=1.0, seed=0)
    assert found is None or found.shape == (3, 3)
    assert count >= 4 or found is None


@pytest.mark.parametrize("estimate", BOTH)
def test_matches_that_fix_nothing_are_no_error(estimate: Callable[..., Points | None]) -> None:
    same = np.full((50, 2), 7.0)
    line = np.arange(50.0)[:, None] * [1.0, 2.0]
    for points in (same, line):
        found = estimate(points, points, max_error_px=1.0, seed=0)
        assert found is None or np.isfinite(found).all()
