"""Two-view geometry for benchmarks: MAGSAC++ (Barath et al., CVPR 2020) as in OpenCV.

It marginalises over the noise level, so features of any precision are judged alike: there is no
inlier threshold to be tuned to them. (The reconstruction itself verifies with COLMAP.) Every
estimate starts from the given seed and runs in one thread: equal matches give equal results.

A homography is polished by least squares over all its inliers: where some matches are exact and
others pixels off, as after refinement, OpenCV's last step leaves twice the error at the corners.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from reconstruct.evaluation.homography import transfer_errors_px
from reconstruct.geometry import Float64

MAX_ITERATIONS = 100_000
CONFIDENCE = 0.9999
INLIER_SIGMAS = 3.0
"""Matches within so many times ``max_error_px``, MAGSAC++'s largest sigma, are inliers."""
POLISHING_ROUNDS = 10
MIN_POLISHED = 8
"""A homography fits four inliers exactly: with few, there is nothing to average."""


def estimate_homography(
    first: NDArray[Any], second: NDArray[Any], *, max_error_px: float, seed: int
) -> Float64 | None:
    """Homography of matches.

    Args:
        first: (M, 2) positions in the first image.
        second: (M, 2) matching positions in the second image.
        max_error_px: MAGSAC++'s threshold.
        seed: Seed of its samples.

    Returns:
        (3, 3) second_from_first; None if it cannot be estimated.
    """
    if len(first) < 4:
        return None
    x, y = _points(first), _points(second)
    found, _ = cv2.findHomography(x, y, _options(max_error_px, seed))
    homography = _matrix(found)
    return None if homography is None else _polished(homography, x, y, max_error_px)


def _polished(homography: Float64, first: Float64, second: Float64, max_error_px: float) -> Float64:
    """The homography by least squares over its inliers, which change with it until they agree."""
    inliers = np.zeros(len(first), np.bool_)
    for _ in range(POLISHING_ROUNDS):
        before = inliers
        inliers = transfer_errors_px(first, second, homography) < INLIER_SIGMAS * max_error_px
        if inliers.sum() < MIN_POLISHED or np.array_equal(inliers, before):
            break
        found = _matrix(cv2.findHomography(first[inliers], second[inliers], 0)[0])
        if found is None:
            break
        homography = found
    return homography


def estimate_fundamental(
    first: NDArray[Any], second: NDArray[Any], *, max_error_px: float, seed: int
) -> Float64 | None:
    """Fundamental matrix of matches.

    Args:
        first: (M, 2) positions in the first image.
        second: (M, 2) matching positions in the second image.
        max_error_px: MAGSAC++'s threshold.
        seed: Seed of its samples.

    Returns:
        (3, 3) F with x_second^T F x_first = 0; None if it cannot be estimated.
    """
    if len(first) < 8:
        return None
    options = _options(max_error_px, seed)
    matrix, _ = cv2.findFundamentalMat(_points(first), _points(second), options)
    return _matrix(matrix)


def _points(positions: NDArray[Any]) -> Float64:
    return np.ascontiguousarray(positions, np.float64)


def _matrix(matrix: Any) -> Float64 | None:
    if matrix is None or matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        return None
    return np.asarray(matrix, np.float64)


def _options(max_error_px: float, seed: int) -> cv2.UsacParams:
    """The options that the flag USAC_MAGSAC stands for, but with a seed and one thread."""
    options = cv2.UsacParams()
    options.threshold = max_error_px
    options.confidence = CONFIDENCE
    options.maxIterations = MAX_ITERATIONS
    options.randomGeneratorState = seed
    options.isParallel = False
    options.sampler = cv2.SAMPLING_UNIFORM
    options.score = cv2.SCORE_METHOD_MAGSAC
    options.loMethod = cv2.LOCAL_OPTIM_SIGMA
    options.loIterations = 10
    options.loSampleSize = 50
    options.final_polisher = cv2.MAGSAC
    options.final_polisher_iterations = 3
    options.neighborsSearch = cv2.NEIGH_GRID
    return options
