"""Compact descriptors: fewer dimensions (PCA) and fewer bytes per number.

Descriptors are unit vectors that are compared by their dot product, and remain so: `expand` turns
any stored form back into float32 unit vectors, whose dot products approximate those of the
originals. It needs nothing but the array:

- float32, float16: the numbers themselves, normalised again after rounding;
- uint8: number = 128 + round(127 x / max |x|) with the largest component of that descriptor, so
  (number - 128) is the descriptor up to its length, which normalisation restores.

The basis is that of the largest second moments **about zero** (the mean is not subtracted): the aim
is to preserve dot products, not distances from a mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from scipy.linalg import block_diag

from reconstruct.errors import WeightsError

Encoding = Literal["float32", "float16", "uint8"]
Float32 = NDArray[np.float32]

_ZERO: Final = 128
_KEY: Final = "basis"


def fit_basis(
    descriptors: Iterable[NDArray[Any]], dim: int, columns: Sequence[int] | None = None
) -> Float32:
    """A basis that keeps most of the dot products between descriptors.

    Only a (D, D) moment is kept in memory. Signs are fixed (each column's largest entry is
    positive), so equal data give an equal basis.

    Args:
        descriptors: Arrays (N_i, D), e.g. one per image; read once.
        dim: Number of dimensions to keep.
        columns: Where there are descriptors of several kinds, which of the D columns are whose:
            how many each kind has, one after the other, zeros elsewhere. None: one kind has all.

    Returns:
        (D, K) float32 orthonormal columns: ``dim`` for each kind that has more, the others' own.

    Raises:
        ValueError: There are no descriptors, or no kind has ``dim`` columns.
    """
    moment: NDArray[np.float64] | None = None
    for block in descriptors:
        values = np.asarray(block, np.float64)
        moment = values.T @ values + (0.0 if moment is None else moment)
    if moment is None or not moment.any():
        raise ValueError("expected descriptors to learn a basis from, got none")
    columns = columns or [len(moment)]
    if not 0 < dim <= max(columns):
        raise ValueError(f"expected 1 to {max(columns)} dimensions, got {dim}")
    ends = np.cumsum(columns)
    kinds = [moment[end - n : end, end - n : end] for n, end in zip(columns, ends, strict=True)]
    blocks = [_largest(kind, dim) if len(kind) > dim else np.eye(len(kind)) for kind in kinds]
    return np.ascontiguousarray(block_diag(*blocks), np.float32)


def _largest(moment: NDArray[np.float64], dim: int) -> NDArray[np.float64]:
    """(D, dim) eigenvectors of the largest eigenvalues of a (D, D) moment."""
    _, vectors = np.linalg.eigh(moment)  # eigenvalues ascend
    basis = vectors[:, ::-1][:, :dim]
    largest = np.take_along_axis(basis, np.abs(basis).argmax(0)[None], 0)
    found: NDArray[np.float64] = basis * np.sign(largest)
    return found


def compact(
    descriptors: NDArray[Any], basis: Float32 | None = None, encoding: Encoding = "float32"
) -> NDArray[Any]:
    """Compress descriptors.

    Args:
        descriptors: (N, D) unit vectors.
        basis: (D, dim) of `fit_basis`; None keeps all dimensions.
        encoding: The number format.

    Returns:
        (N, dim) in the given encoding.
    """
    values = np.asarray(descriptors, np.float32)
    if basis is not None:
        if values.shape[1] != len(basis):
            raise ValueError(
                f"expected descriptors of length {len(basis)}, as the basis was learned from, "
                f"got {values.shape[1]}"
            )
        values = _unit(values @ basis)
    if encoding == "uint8":
        largest = np.abs(values).max(axis=1, keepdims=True, initial=1e-12)
        return np.asarray(_ZERO + np.rint(127 / largest * values), np.uint8)
    return np.asarray(values, encoding)


def expand(descriptors: NDArray[Any]) -> Float32:
    """(N, dim) descriptors in any encoding -> (N, dim) float32 unit vectors, for matching."""
    if descriptors.dtype == np.float32:
        return np.asarray(descriptors, np.float32)
    values = descriptors.astype(np.float32)
    if descriptors.dtype == np.uint8:
        values -= _ZERO
    elif descriptors.dtype != np.float16:
        raise ValueError(f"expected float32, float16 or uint8 descriptors, got {descriptors.dtype}")
    return _unit(values)


def _unit(values: Float32) -> Float32:
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(length, 1e-12), np.float32)


def write_basis(path: Path, basis: Float32) -> None:
    """Store a basis for other runs (safetensors, one array named ``basis``)."""
    # Not `save_file`, which leaves a file that only its owner can read.
    path.write_bytes(save({_KEY: np.ascontiguousarray(basis, np.float32)}))


def read_basis(path: Path) -> Float32:
    """A basis stored by `write_basis`. Raises WeightsError if the file is missing or something
    else."""
    try:
        basis = load_file(path)[_KEY]
    except (OSError, SafetensorError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(
            f"{path}: not a stored descriptor basis ({error!r}); write one with `write_basis`, "
            "or learn it from the run's own descriptors"
        ) from error
    if (
        basis.dtype.kind != "f"
        or basis.ndim != 2
        or basis.shape[0] < basis.shape[1]
        or not np.isfinite(basis).all()
    ):
        raise WeightsError(f"{path}: expected a finite (D, dim) array, dim <= D, {basis.shape=}")
    return np.asarray(basis, np.float32)
