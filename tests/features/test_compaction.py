"""Smaller descriptors keep their dot products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from reconstruct.errors import WeightsError
from reconstruct.features.compaction import (
    Encoding,
    compact,
    expand,
    fit_basis,
    read_basis,
    write_basis,
)


def _descriptors(count: int, dim: int, rank: int, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    values = np.abs(rng.normal(size=(count, rank))) @ np.abs(rng.normal(size=(rank, dim)))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return values.astype(np.float32)


@pytest.mark.parametrize(
    ("encoding", "tolerance"), [("float32", 1e-5), ("float16", 2e-3), ("uint8", 2e-2)]
)
def test_dot_products_survive(encoding: Encoding, tolerance: float) -> None:
    descriptors = _descriptors(200, 64, rank=20)
    basis = fit_basis([descriptors[:90], descriptors[90:]], 20)  # holds all of a rank of 20
    for chosen in (None, basis):
        stored = compact(descriptors, chosen, encoding)
        assert stored.dtype == np.dtype(encoding)
        vectors = expand(stored)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(vectors @ vectors.T, descriptors @ descriptors.T, atol=tolerance)


def test_uint8_of_one_descriptor_by_hand() -> None:
    stored = compact(np.array([[0.8, -0.6, 0.0]], np.float32), encoding="uint8")
    assert stored.tolist() == [[255, 33, 128]]  # 128 + 127, 128 - round(95.25), 128
    np.testing.assert_allclose(expand(stored), [[0.8007, -0.5990, 0.0]], atol=1e-4)


def test_a_basis_is_orthonormal_and_does_not_depend_on_the_split() -> None:
    descriptors = _descriptors(100, 32, rank=32)
    basis = fit_basis([descriptors], 8)
    np.testing.assert_allclose(basis.T @ basis, np.eye(8), atol=1e-5)
    np.testing.assert_allclose(fit_basis(np.split(descriptors, 4), 8), basis, atol=1e-5)
    assert (basis[np.abs(basis).argmax(0), np.arange(8)] > 0).all()


def test_kinds_have_bases_of_their_own() -> None:
    first, second = _descriptors(80, 32, rank=32), _descriptors(90, 8, rank=8, seed=1)
    rows = [np.hstack([first, np.zeros((80, 8))]), np.hstack([np.zeros((90, 32)), second])]
    basis = fit_basis(rows, 12, [32, 8])
    assert basis.shape == (40, 12 + 8)
    np.testing.assert_allclose(basis[:32, :12], fit_basis([first], 12), atol=1e-5)
    np.testing.assert_array_equal(basis[32:, 12:], np.eye(8))
    assert not basis[:32, 12:].any()
    assert not basis[32:, :12].any()
    with pytest.raises(ValueError, match="expected 1 to 32 dimensions, got 33"):
        fit_basis(rows, 33, [32, 8])


@pytest.mark.parametrize("encoding", ["float32", "float16", "uint8"])
def test_no_descriptors(encoding: Encoding) -> None:
    none = np.zeros((0, 32), np.float32)
    stored = compact(none, fit_basis([_descriptors(40, 32, 32)], 8), encoding)
    assert stored.shape == expand(stored).shape == (0, 8)
    with pytest.raises(ValueError, match="got none"):
        fit_basis([none], 8)


def test_wrong_use() -> None:
    descriptors = _descriptors(10, 32, 32)
    with pytest.raises(ValueError, match="1 to 32 dimensions, got 33"):
        fit_basis([descriptors], 33)
    with pytest.raises(ValueError, match=r"length 16.*got 32"):
        compact(descriptors, np.eye(16, 8, dtype=np.float32))
    with pytest.raises(ValueError, match="int64"):
        expand(np.zeros((3, 3), np.int64))


def test_a_stored_basis(tmp_path: Path) -> None:
    basis = fit_basis([_descriptors(40, 32, 32)], 8)
    write_basis(tmp_path / "basis.safetensors", basis)
    np.testing.assert_array_equal(read_basis(tmp_path / "basis.safetensors"), basis)
    (tmp_path / "other").write_bytes(b"x")
    for name in ("other", "absent"):
        with pytest.raises(WeightsError, match=f"{name}: not a stored descriptor basis"):
            read_basis(tmp_path / name)
