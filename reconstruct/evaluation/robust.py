"""Two-view geometry for benchmarks: MAGSAC++ (Barath et al., CVPR 2020) as in OpenCV.

It marginalises over the noise, so features of any precision are judged alike: no inlier threshold
has to suit them. (The reconstruction itself verifies with COLMAP.) Every estimate starts from the
given seed and runs in one thread: equal matches give equal results.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from reconstruct.geometry import Float64

MAX_ITERATIONS = 100_000
CONFIDENCE = 0.9999


def estimate_homography(
    first: NDArray[Any], second: NDArray[Any], *, max_error_px: float, seed: int
) -> Float64 | None:
    """(3, 3) second_from_first of matched (M, 2) positions; None if they do not give one."""
    if len(first) < 4:
        return None
    found, _ = cv2.findHomography(_points(first), _points(second), _options(max_error_px, seed))
    return _matrix(found)


def estimate_fundamental(
    first: NDArray[Any], second: NDArray[Any], *, max_error_px: float, seed: int
) -> Float64 | None:
    """(3, 3) F with x_second^T F x_first = 0 of matched (M, 2) positions; None without one."""
    if len(first) < 8:
        return None
    options = _options(max_error_px, seed)
    found, _ = cv2.findFundamentalMat(_points(first), _points(second), options)
    return _matrix(found)


def _points(positions: NDArray[Any]) -> Float64:
    return np.ascontiguousarray(positions, np.float64)


def _matrix(found: Any) -> Float64 | None:
    if found is None or found.shape != (3, 3) or not np.isfinite(found).all():
        return None
    return np.asarray(found, np.float64)


def _options(max_error_px: float, seed: int) -> cv2.UsacParams:
    """What the flag USAC_MAGSAC stands for, but with a seed and one thread."""
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
