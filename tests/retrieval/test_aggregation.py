"""VLAD, k-means and whitening on numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from reconstruct.retrieval.aggregation import (
    Aggregation,
    kmeans,
    learn_whitening,
    normalized,
    vlad,
)


def test_kmeans_finds_separate_groups() -> None:
    rng = np.random.default_rng(1)
    groups = np.array([[0, 0], [10, 0], [0, 10]], np.float32)
    rows = np.concatenate([g + rng.normal(0, 0.1, (50, 2)) for g in groups]).astype(np.float32)
    centers = kmeans(rows, 3, seed=0)
    np.testing.assert_allclose(centers[np.lexsort(centers.T)], groups, atol=0.1)
    np.testing.assert_array_equal(centers, kmeans(rows, 3, seed=0))


def test_kmeans_with_fewer_rows_than_clusters() -> None:
    rows = np.array([[1, 0], [0, 1]], np.float32)
    assert sorted(kmeans(rows, 8, seed=0).tolist()) == [[0, 1], [1, 0]]
    assert kmeans(np.ones((5, 2), np.float32), 3, seed=0).shape == (3, 2)
    with pytest.raises(ValueError, match="at least one row"):
        kmeans(rows[:0], 2, seed=0)


def test_a_center_that_loses_its_rows_stays() -> None:
    # Lloyd's steps from any seeds end in these groups; of equal rows one center gets none.
    rows = np.array([[0, 0]] * 4 + [[8, 0]], np.float32)
    centers = kmeans(rows, 3, seed=0)
    assert {tuple(center) for center in centers.tolist()} == {(0, 0), (8, 0)}


def test_vlad_by_hand() -> None:
    centers = np.array([[0, 0], [10, 0]], np.float32)
    rows = np.array([[0, 2], [0, 1], [13, 4]], np.float32)
    # Residuals (0, 3) and (3, 4); each to unit length, then the whole.
    expected = np.array([0, 1, 0.6, 0.8]) / np.sqrt(2)
    np.testing.assert_allclose(vlad(rows, centers), expected, atol=1e-6)
    np.testing.assert_array_equal(vlad(rows[:0], centers), np.zeros(4))


def test_whitening_makes_variances_equal_or_keeps_them() -> None:
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(400, 3)) * [5.0, 1.0, 0.2] + [1, 2, 3]).astype(np.float32)
    full = learn_whitening(vectors, 3, strength=1.0)
    np.testing.assert_allclose(
        np.cov((vectors - full.mean) @ full.projection, rowvar=False, ddof=0), np.eye(3), atol=1e-3
    )
    none = learn_whitening(vectors, 3, strength=0.0)
    np.testing.assert_allclose(none.projection.T @ none.projection, np.eye(3), atol=1e-5)


def test_whitening_drops_what_holds_no_variance() -> None:
    line = np.outer(np.arange(5.0), [3.0, 4.0]).astype(np.float32)
    found = learn_whitening(line, 2, strength=0.5)
    assert found.projection.shape == (2, 1)
    np.testing.assert_allclose(found(line)[:, 0], [-1, -1, 0, 1, 1], atol=1e-5)
    same = learn_whitening(np.ones((4, 2), np.float32), 2, strength=0.5)
    assert np.isfinite(same(np.ones((1, 2), np.float32))).all()


def test_a_small_collection_keeps_few_directions() -> None:
    vectors = np.random.default_rng(0).normal(size=(200, 64)).astype(np.float32)
    assert learn_whitening(vectors, 64, strength=0.5).projection.shape == (64, 25)
    assert learn_whitening(vectors[:20], 64, strength=0.5).projection.shape == (64, 16)
    assert learn_whitening(vectors, 8, strength=0.5).projection.shape == (64, 8)


def test_aggregation_is_of_unit_length() -> None:
    np.testing.assert_allclose(Aggregation()(np.array([[3.0, 4.0]])), [0.6, 0.8], atol=1e-6)
    np.testing.assert_array_equal(normalized(np.zeros((2, 3), np.float32)), np.zeros((2, 3)))
