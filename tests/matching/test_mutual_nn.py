"""Mutual nearest neighbours against their definition; the order in which pairs are visited."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import reconstruct
from reconstruct.errors import UsageError
from reconstruct.matching import nearest
from reconstruct.matching.many import tiled
from reconstruct.matching.mutual_nn import match, mutual_nearest, mutually_among, one_to_one
from reconstruct.matching.nearest import largest, nearest_both_ways, similarity_blocks
from reconstruct.storage.cache import Cache
from reconstruct.types import Matches

Array = NDArray[Any]


def unit(rng: np.random.Generator, count: int, dim: int = 8) -> Array:
    values = rng.normal(size=(count, dim))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def oracle(a: Array, b: Array, ratio: float | None, min_score: float | None) -> list[list[int]]:
    """Mutual nearest neighbours one by one, from the definition."""
    if not len(a) or not len(b):
        return []
    similar = a.astype(np.float64) @ b.astype(np.float64).T
    pairs = []
    for i, row in enumerate(similar):
        j = int(np.argmax(row))
        if int(np.argmax(similar[:, j])) != i:
            continue
        if min_score is not None and row[j] < min_score:
            continue
        rivals = np.delete(row, j), np.delete(similar[:, j], i)
        if ratio is not None and not all(clear(row[j], others, ratio) for others in rivals):
            continue
        pairs.append([i, j])
    return pairs


def clear(best: float, others: Array, ratio: float) -> bool:
    """Lowe's ratio test from one side."""
    if not len(others):
        return True
    nearest, second = (np.sqrt(max(0, 2 - 2 * s)) for s in (best, others.max()))
    return bool(nearest < ratio * second)


@pytest.mark.parametrize("blocks", [(256, 2048), (1, 1), (3, 5), (7, 2), (40, 4)])
@pytest.mark.parametrize(("ratio", "min_score"), [(None, None), (0.8, None), (None, 0.7), (0.9, 0)])
def test_equals_the_definition_whatever_the_blocks(
    monkeypatch: pytest.MonkeyPatch,
    blocks: tuple[int, int],
    ratio: float | None,
    min_score: float | None,
) -> None:
    monkeypatch.setattr(nearest, "CPU_BLOCK", blocks)
    rng = np.random.default_rng(0)
    for count_a, count_b in [(40, 33), (7, 40), (1, 9), (9, 1), (1, 1), (0, 5), (5, 0), (0, 0)]:
        a, b = unit(rng, count_a), unit(rng, count_b)
        shared = min(count_a, count_b) // 2
        b[:shared] = a[:shared] + rng.normal(scale=0.05, size=(shared, 8))
        b /= np.linalg.norm(b, axis=1, keepdims=True)
        found = match(a, b, ratio=ratio, min_score=min_score, device="cpu")
        assert found.dtype == np.uint32
        assert found.shape == (len(found), 2)
        assert found.tolist() == oracle(a, b, ratio, min_score)


@pytest.mark.parametrize("blocks", [(256, 2048), (1, 1), (2, 3)])
def test_of_equal_similarities_the_first_wins(
    monkeypatch: pytest.MonkeyPatch, blocks: tuple[int, int]
) -> None:
    monkeypatch.setattr(nearest, "CPU_BLOCK", blocks)
    axes = np.eye(4, dtype=np.float32)
    a = axes[[0, 0, 1, 2, 1]]
    b = axes[[1, 0, 0, 1, 3, 3]]
    # 0-1: first of two equal rows and columns; 2-0 likewise. Row 3 is at right angles to all.
    assert match(a, b).tolist() == [[0, 1], [2, 0]]
    assert match(a, b, ratio=0.9).tolist() == [], "the second nearest is as near: ambiguous"
    for ratio, min_score in itertools.product((None, 0.5, 0.99), (None, -1.0, 0.0, 1.0)):
        found = match(a, b, ratio=ratio, min_score=min_score).tolist()
        assert found == oracle(a, b, ratio, min_score)


def turned(*degrees: float) -> Array:
    """Unit vectors in the plane."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_the_ratio_test_looks_from_both_images() -> None:
    # From 0 degrees, 10 is much nearer than 90; but from 10 degrees, 0 is not that much nearer than
    # 30: chords of 10 and 20 degrees, 0.502 to 1.
    a, b = turned(0, 30), turned(10, 90)
    assert match(a, b).tolist() == [[0, 0]]
    assert match(a, b, ratio=0.51).tolist() == [[0, 0]]
    assert match(a, b, ratio=0.49).tolist() == []
    assert match(b, a, ratio=0.51).tolist() == [[0, 0]]
    assert match(b, a, ratio=0.49).tolist() == []
    assert match(a[:1], b[:1], ratio=0.01).tolist() == [[0, 0]], "there is no second nearest"


@pytest.mark.parametrize("ratio", [None, 0.8, 0.95])
def test_the_order_of_the_images_does_not_matter(ratio: float | None) -> None:
    rng = np.random.default_rng(4)
    a, b = (torch.from_numpy(unit(rng, count)) for count in (300, 400))
    found, swapped = mutual_nearest(a, b, ratio=ratio), mutual_nearest(b, a, ratio=ratio)
    assert len(found) > 0
    np.testing.assert_array_equal(found.indices, swapped.swapped().indices)
    np.testing.assert_allclose(found.scores, swapped.swapped().scores, atol=1e-6)


@pytest.mark.parametrize("blocks", [(256, 2048), (1, 1), (3, 5), (7, 2)])
@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_pairs_that_are_among_the_nearest_of_each_other(
    monkeypatch: pytest.MonkeyPatch, blocks: tuple[int, int], count: int
) -> None:
    monkeypatch.setattr(nearest, "CPU_BLOCK", blocks)
    rng = np.random.default_rng(0)
    for rows, columns in [(30, 23), (1, 9), (9, 1), (0, 5), (5, 0)]:
        a, b = unit(rng, rows), unit(rng, columns)
        ranks = [(-similar).argsort(axis).argsort(axis) for similar in [a @ b.T] for axis in (1, 0)]
        expected = np.argwhere((ranks[0] < count) & (ranks[1] < count)) if rows and columns else []
        found = mutually_among(torch.from_numpy(a), torch.from_numpy(b), count)
        assert sorted(found.indices.tolist()) == np.asarray(expected).tolist()
        scores = np.einsum(
            "nd,nd->n", *(x[i] for x, i in zip((a, b), found.indices.T, strict=True))
        )
        np.testing.assert_allclose(found.scores, scores, atol=1e-6)


def test_a_keypoint_stays_in_the_match_of_which_it_is_surest() -> None:
    indices = np.array([[0, 0], [0, 1], [1, 1], [2, 0], [3, 3], [4, 3]], np.uint32)
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.5], np.float32)
    found = one_to_one(Matches(indices=indices, scores=scores))
    assert found.indices.tolist() == [[0, 0], [3, 3]], (
        "1-1 gave way to 0-1, though that was not kept"
    )
    assert len(one_to_one(Matches.empty())) == 0


def test_the_largest_of_rows_and_columns_is_the_first() -> None:
    rng = np.random.default_rng(0)
    for shape in [(1, 1), (1, 7), (7, 1), (20, 30)]:
        table = rng.integers(-1, 2, shape).astype(np.float32)  # nearly all are tied
        for dim in (0, 1):
            score, index = largest(torch.from_numpy(table), dim)
            np.testing.assert_array_equal(score, table.max(axis=dim))
            np.testing.assert_array_equal(index, table.argmax(axis=dim))


def test_any_float_type_and_memory_layout() -> None:
    rng = np.random.default_rng(1)
    a, b = unit(rng, 20), unit(rng, 30)
    expected = match(a, b).tolist()
    assert expected
    wide = np.repeat(np.repeat(b, 2, axis=0), 3, axis=1)
    strided = wide[::2, ::3]
    assert not strided.flags.c_contiguous
    assert match(np.asfortranarray(a), strided).tolist() == expected
    assert match(np.ascontiguousarray(a[::-1])[::-1], b).tolist() == expected
    assert match(a.astype(np.float64), b.astype(np.float64)).tolist() == expected
    assert match(a[:0].astype(np.float16), b).shape == (0, 2)
    frozen = a.copy()
    frozen.flags.writeable = False
    assert match(frozen, b).tolist() == expected
    assert reconstruct.match(a, b).tolist() == expected


def test_memory_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def watch(*args: Any) -> Iterator[tuple[slice, slice, torch.Tensor]]:
        for rows, columns, block in similarity_blocks(*args):
            sizes.append(block.numel())
            yield rows, columns, block

    monkeypatch.setattr(nearest, "similarity_blocks", watch)
    rng = np.random.default_rng(2)
    a, b = (torch.from_numpy(unit(rng, count)) for count in (300, 500))
    nearest_both_ways(a, b, runner_up=True, size=(64, 128))
    assert len(sizes) == 5 * 4
    assert sum(sizes) == 300 * 500
    assert max(sizes) == 64 * 128


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "meta", "cuda:x"])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(UsageError, match=f"--device {device}"):
        match(np.zeros((1, 4)), np.zeros((1, 4)), device=device)


def loads(pairs: list[tuple[str, str]], images_in_cache: int) -> Counter[str]:
    counter: Counter[str] = Counter()

    def load(name: str) -> torch.Tensor:
        counter[name] += 1
        return torch.zeros(256)  # 1 KiB

    cache = Cache(load, images_in_cache << 10)
    for first, second in tiled(pairs):
        a, b = cache[first], cache[second]
        assert a is cache[first]
        assert b is cache[second], "both of a pair are kept"
    return counter


def test_tiles_keep_all_pairs_and_read_features_seldom() -> None:
    names = [f"{i:03d}" for i in range(64)]
    exhaustive = list(itertools.combinations(names, 2))
    assert sorted(tiled(exhaustive)) == exhaustive
    assert set(loads(exhaustive, 64).values()) == {1}
    # With room for two tiles of 16, four tiles: at most once for each tile of the others.
    few = loads(exhaustive, 32)
    assert max(few.values()) <= 4
    naive = loads_in_order(exhaustive, 32)
    assert sum(few.values()) < naive / 4
    sequential = [(names[i], names[i + k]) for i in range(60) for k in (1, 2, 3)]
    assert max(loads(sequential, 32).values()) <= 2
    assert tiled([]) == []


def loads_in_order(pairs: list[tuple[str, str]], images_in_cache: int) -> int:
    counter = 0

    def load(name: str) -> torch.Tensor:
        nonlocal counter
        counter += 1
        return torch.zeros(256)

    cache = Cache(load, images_in_cache << 10)
    for first, second in pairs:
        assert cache[first] is not cache[second]
    return counter


def test_a_pair_fits_into_the_smallest_cache() -> None:
    assert loads([("a", "b"), ("a", "c"), ("b", "c")], 0) == {"a": 1, "b": 2, "c": 1}
