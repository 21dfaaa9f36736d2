"""Nearest neighbours by products in bfloat16 are those of float32, whatever rounding hides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reconstruct.matching import nearest, rounded
from reconstruct.matching.mutual_nn import mutual_nearest
from reconstruct.matching.nearest import nearest_among, nearest_both_ways
from reconstruct.matching.rounded import bfloat16_is_fast, likely_nearest


def test_float32_decides_between_what_bfloat16_cannot_tell_apart() -> None:
    # From 1 to 2 bfloat16 has steps of 1/128: the three of `second` are one and the same to it.
    first = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    second = torch.tensor([[1.0000, 0.0], [1.0002, 0.0], [1.0001, 0.0], [0.0, 0.5]])
    likely = likely_nearest(first, second)
    assert likely is not None
    assert {(0, 0), (0, 1), (0, 2), (1, 3)} <= set(zip(*(x.tolist() for x in likely), strict=True))
    forward, backward = nearest_among(first, second, *likely)
    assert forward.index.tolist() == [1, 3]
    assert forward.score.tolist() == pytest.approx([1.0002, 0.5], abs=1e-7)
    assert backward.index.tolist() == [0, 0, 0, 1]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 32)),
    spread=st.sampled_from([1.0, 0.1, 0.003]),
    length=st.sampled_from([1e-3, 1.0, 300.0]),
    shift=st.sampled_from([-1.0, 0.0, 1.0]),
)
def test_as_the_definition(
    seed: int, shape: tuple[int, int, int], spread: float, length: float, shift: float
) -> None:
    """Near to each other (`spread`), of any length, with similarities below zero only (-1)."""
    rng = np.random.default_rng(seed)
    rows, columns, dim = shape
    first = length * (1 + spread * rng.normal(size=(rows, dim)).astype(np.float32))
    second = shift + spread * rng.normal(size=(columns, dim)).astype(np.float32)
    likely = likely_nearest(*map(torch.from_numpy, (first, second)), height=7)
    if likely is None:
        assert rows * columns > 16 * (rows + columns)
        return
    similar = first.astype(np.float64) @ second.astype(np.float64).T
    allowed = 1e-6 * np.linalg.norm(first, axis=1).max() * np.linalg.norm(second, axis=1).max()
    found = nearest_among(*map(torch.from_numpy, (first, second)), *likely)
    for best, table in zip(found, (similar, similar.T), strict=True):
        reached = table[np.arange(len(table)), best.index.numpy()]
        assert (reached >= table.max(axis=1) - allowed).all()
        np.testing.assert_allclose(best.score.numpy(), reached, rtol=0, atol=allowed)


def test_of_equal_ones_the_first_wins() -> None:
    first = torch.eye(3)[[2, 0, 0]]
    second = torch.eye(3)[[0, 0, 2, 2]]
    likely = likely_nearest(first, second, height=1)
    assert likely is not None
    forward, backward = nearest_among(first, second, *likely)
    assert forward.index.tolist() == [2, 0, 0]
    assert backward.index.tolist() == [1, 1, 0, 0]


def test_a_crowd_is_left_to_the_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """All the same, as on photos of one colour, and vectors of zeros alone."""
    monkeypatch.setattr(nearest, "bfloat16_is_fast", lambda: True)
    monkeypatch.setattr(nearest, "MANY", 0)
    for values in (torch.ones(100, 4), torch.zeros(100, 4)):
        assert likely_nearest(values, values) is None
        forward, backward = nearest_both_ways(values, values)
        assert forward.index.tolist() == backward.index.tolist() == [0] * 100


def test_matches_do_not_depend_on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    points = rng.normal(size=(900, 64))
    images = [points + rng.normal(scale=0.7, size=points.shape) for _ in range(2)]
    first, second = (torch.nn.functional.normalize(torch.from_numpy(x).float()) for x in images)
    found = []
    monkeypatch.setattr(nearest, "MANY", 0)
    for fast in (False, True):
        monkeypatch.setattr(nearest, "bfloat16_is_fast", lambda fast=fast: fast)
        found.append(mutual_nearest(first, second))
    np.testing.assert_array_equal(found[0].indices, found[1].indices)
    np.testing.assert_allclose(found[0].scores, found[1].scores, rtol=0, atol=1e-6)
    assert len(found[0].indices) > 500


def test_few_sizes_are_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN keeps a program for each: 1,000 photos took 2 GB of them."""
    sizes = set()

    class Watched(torch.Tensor):
        def __matmul__(self, other: torch.Tensor) -> torch.Tensor:
            sizes.add((*self.shape, *other.shape))
            return super().__matmul__(other)

    of = rounded.Rounded.of

    def watched(vectors: torch.Tensor) -> rounded.Rounded:
        made = of(vectors)
        return replace(made, values=made.values.as_subclass(Watched))

    monkeypatch.setattr(rounded.Rounded, "of", watched)
    rng = np.random.default_rng(0)
    for count in rng.integers(1, 5000, 20):
        vectors = torch.from_numpy(rng.normal(size=(count, 2)).astype(np.float32))
        likely_nearest(vectors, vectors[: count // 2 + 1])
    assert 1 < len(sizes) < 64
    assert all(rows % 128 == columns % 128 == 0 for rows, _, _, columns in sizes)


@pytest.mark.parametrize(
    ("text", "fast"),
    [
        ("processor : 0\nflags : fpu avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("flags : fpu avx512f avx512_vnni\n", False),
        ("Features : fp asimd bf16\n", False),  # not measured on ARM
        ("", False),
    ],
)
def test_what_the_processor_has(tmp_path: Path, text: str, fast: bool) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert bfloat16_is_fast(tmp_path / "cpuinfo") is fast
    assert not bfloat16_is_fast(tmp_path / "absent")
