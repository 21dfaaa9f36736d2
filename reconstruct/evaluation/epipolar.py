"""Errors of correspondences with respect to a fundamental matrix: numpy only.

F is (3, 3) with x_second^T F x_first = 0; positions are COLMAP pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.geometry import Float64


def epipolar_distances_px(
    fundamental: NDArray[Any] | None, first: NDArray[Any], second: NDArray[Any]
) -> Float64:
    """Distances of correspondences from their epipolar lines, the larger one of the two images.

    Args:
        fundamental: (3, 3), or None if it could not be estimated.
        first: (C, 2) positions in the first image.
        second: (C, 2) positions in the second image.

    Returns:
        (C,) pixels; infinite without a matrix, or where a point has no epipolar line (the epipole).
    """
    if fundamental is None:
        return np.full(len(first), np.inf)
    matrix = np.asarray(fundamental, np.float64)
    x1 = np.column_stack([np.asarray(first, np.float64), np.ones(len(first))])
    x2 = np.column_stack([np.asarray(second, np.float64), np.ones(len(second))])
    return np.maximum(_line_distances(x1 @ matrix.T, x2), _line_distances(x2 @ matrix, x1))


def _line_distances(lines: Float64, points: Float64) -> Float64:
    """(C,) distances of homogeneous (C, 3) points (last entry 1) from (C, 3) lines."""
    norms = np.linalg.norm(lines[:, :2], axis=1)
    values = np.abs(np.sum(lines * points, axis=1))
    distances = np.full(len(lines), np.inf)
    np.divide(values, norms, out=distances, where=norms > 0)
    return distances
