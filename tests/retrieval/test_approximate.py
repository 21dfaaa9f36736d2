"""faiss's inverted file against the exact search."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from reconstruct.config import validate
from reconstruct.errors import ConfigError, UsageError
from reconstruct.retrieval.approximate import nearly_nearest
from reconstruct.retrieval.nearest import nearest
from reconstruct.stages.pair_settings import RetrievalConfig


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_nearly_the_same_as_the_exact_search() -> None:
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    places = unit(rng, 200, 32)
    database = places[rng.integers(0, 200, 3000)] + rng.normal(scale=0.1, size=(3000, 32))
    database = np.float32(database / np.linalg.norm(database, axis=1, keepdims=True))
    index, score = nearly_nearest(database, database, 10, itself=True)
    expected, _ = nearest(database, database, 10, itself=True)
    found = np.mean([len(set(a) & set(b)) for a, b in zip(index, expected, strict=True)]) / 10
    assert found > 0.99
    assert not (index == np.arange(3000)[:, None]).any()
    np.testing.assert_allclose(
        score, np.einsum("qd,qkd->qk", database, database[index]), rtol=1e-5, atol=1e-6
    )
    assert (np.diff(score, axis=1) <= 0).all()


def test_of_a_small_database_all_is_looked_at() -> None:
    pytest.importorskip("faiss")
    rng = np.random.default_rng(1)
    queries, database = unit(rng, 5, 8), unit(rng, 40, 8)
    np.testing.assert_array_equal(
        nearly_nearest(queries, database, 50)[0], nearest(queries, database, 50)[0]
    )
    twins = np.repeat(unit(rng, 1, 8), 3, axis=0)
    index, _ = nearly_nearest(twins, twins, 3, itself=True)
    assert [sorted(row) for row in index.tolist()] == [[-1, 1, 2], [-1, 0, 2], [-1, 0, 1]]
    assert nearly_nearest(queries, database[:0], 3)[0].shape == (5, 0)
    assert nearly_nearest(queries[:0], database, 3)[0].shape == (0, 3)


def test_without_faiss_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    vectors = np.eye(3, dtype=np.float32)
    with pytest.raises(UsageError, match=r"pip install 'reconstruct\[faiss\]'"):
        nearly_nearest(vectors, vectors, 1)


def test_folders_need_the_exact_search_and_older_pairs_stay_valid() -> None:
    section = {"method": "retrieval", "search": "faiss"}
    assert "search" in validate(RetrievalConfig, section, "pair").identity()
    assert "search" not in validate(RetrievalConfig, {"method": "retrieval"}, "pair").identity()
    with pytest.raises(ConfigError, match="`within_folders` needs `exact`"):
        validate(RetrievalConfig, {**section, "within_folders": True}, "pair")
