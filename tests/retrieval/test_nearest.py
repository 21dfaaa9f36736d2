"""Blocked top-k against a full sort."""

from __future__ import annotations

import numpy as np
import pytest

from reconstruct.retrieval.nearest import nearest, neighbor_pairs, retrieval_pairs


def oracle(table: np.ndarray, count: int) -> np.ndarray:
    """The largest of each row, of equal ones the first; -1 where nothing is left."""
    order = np.argsort(-table, axis=1, kind="stable")[:, :count]
    return np.where(np.isneginf(np.take_along_axis(table, order, axis=1)), -1, order)


@pytest.mark.parametrize("block", [(1, 1), (3, 4), (7, 100), (1000, 5)])
@pytest.mark.parametrize("count", [1, 4, 30])
def test_like_a_full_sort_ties_included(block: tuple[int, int], count: int) -> None:
    rng = np.random.default_rng(0)
    queries = rng.integers(-2, 3, (17, 3)).astype(np.float32)  # small integers: many ties
    database = rng.integers(-2, 3, (23, 3)).astype(np.float32)
    index, score = nearest(queries, database, count, block=block)
    table = queries @ database.T
    np.testing.assert_array_equal(index, oracle(table, count))
    np.testing.assert_array_equal(score, np.take_along_axis(table, index, axis=1))


@pytest.mark.parametrize("block", [(2, 3), (100, 100)])
def test_within_labels_and_without_itself(block: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(12, 4)).astype(np.float32)
    labels = rng.integers(0, 3, 12)
    index, score = nearest(
        vectors, vectors, 5, query_labels=labels, database_labels=labels, itself=True, block=block
    )
    table = vectors @ vectors.T
    table[labels[:, None] != labels] = -np.inf
    np.fill_diagonal(table, -np.inf)
    np.testing.assert_array_equal(index, oracle(table, 5))
    assert np.isneginf(score[index < 0]).all()


def test_nothing_to_find() -> None:
    empty = np.zeros((0, 4), np.float32)
    assert nearest(np.ones((2, 4), np.float32), empty, 3)[0].shape == (2, 0)
    assert nearest(empty, np.ones((2, 4), np.float32), 3)[0].shape == (0, 2)


def test_pairs_are_ordered_and_unique() -> None:
    index = np.array([[1, 2], [0, -1], [0, 1]])
    names = ["b", "a", "c"]
    assert neighbor_pairs(names, names, index) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert neighbor_pairs([], names, index[:0]) == []


def test_pairs_of_the_most_similar() -> None:
    angles = np.radians([0, 10, 30, 90])
    descriptors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    names = ["x/a", "x/b", "y/c", "y/d"]
    # a-b, b-a, c-b (20 degrees), d-c
    expected = [("x/a", "x/b"), ("x/b", "y/c"), ("y/c", "y/d")]
    assert retrieval_pairs(names, descriptors, 1) == expected
    apart = retrieval_pairs(names, descriptors, 10**12, within_folders=True)
    assert apart == [("x/a", "x/b"), ("y/c", "y/d")]
    assert retrieval_pairs([], descriptors[:0], 3) == []
