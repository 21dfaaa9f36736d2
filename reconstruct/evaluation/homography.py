"""Errors of matches and of estimated homographies, given the true homography: numpy only.

Positions are COLMAP pixels; homographies are (3, 3) second_from_first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.geometry import Float64, apply_homography


def transfer_errors_px(
    first: NDArray[Any], second: NDArray[Any], homography: NDArray[Any]
) -> Float64:
    """Distances |x_second - H x_first| in the second image.

    Args:
        first: (M, 2) positions in the first image.
        second: (M, 2) matching positions in the second image.
        homography: (3, 3) second_from_first.

    Returns:
        (M,) pixels; infinite where H sends a point to infinity or behind the camera.
    """
    errors = np.linalg.norm(apply_homography(homography, first) - second, axis=1)
    return np.where(np.isnan(errors), np.inf, errors)


def share_within(errors: NDArray[Any] | Sequence[float], thresholds: Sequence[float]) -> Float64:
    """(T,) share of ``errors`` that are at most each threshold; 0 if there are no errors."""
    values = np.asarray(errors, np.float64).reshape(-1, 1)
    if not len(values):
        return np.zeros(len(thresholds))
    return np.asarray((values <= np.asarray(thresholds, np.float64)).mean(axis=0))


def corner_error_px(
    estimated: NDArray[Any] | None, truth: NDArray[Any], size: tuple[int, int]
) -> float:
    """Mean distance between the first image's corners mapped by the estimated and the true
    homography.

    Args:
        estimated: (3, 3) second_from_first, or None if it could not be estimated.
        truth: (3, 3) second_from_first.
        size: (width, height) of the first image. Its corners are the centres of the corner pixels,
            as in SuperPoint's evaluation (DeTone et al., 2018).

    Returns:
        Pixels of the second image; infinite without an estimate, or if it sends a corner to
            infinity.
    """
    if estimated is None:
        return float("inf")
    right, bottom = size[0] - 0.5, size[1] - 0.5
    corners = np.array([[0.5, 0.5], [right, 0.5], [right, bottom], [0.5, bottom]])
    homogeneous = np.column_stack([corners, np.ones(4)])
    true, mapped = homogeneous @ np.asarray(truth).T, homogeneous @ np.asarray(estimated).T
    if (true[:, 2] == 0).any() or (mapped[:, 2] == 0).any():
        return float("inf")
    offsets = true[:, :2] / true[:, 2:] - mapped[:, :2] / mapped[:, 2:]
    return float(np.linalg.norm(offsets, axis=1).mean())
