"""Which matches of a pair may be inliers of its geometry: a quick search over many samples.

COLMAP scores every sample on all matches, by how many agree. OpenCV's USAC gives up a bad sample
after a few matches, and PoseLib scores by how well they agree: the former is quicker where the
answer is clear, the latter more reliable where most matches are wrong.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import poselib
from numpy.typing import NDArray

from reconstruct.colmap.cameras import Camera

CLEAR_RATIO = 0.5
"""The answer is clear if at least this share of the matches agrees. With fewer, another geometry
may have more inliers, or closer ones."""

CLEAR_BAND = 0.5
"""Share of the largest error of an inlier within which they have to agree."""

CLEAR_COUNT = 45
"""The answer is clear if at least this many matches agree: of a few, many agree by chance."""

CLEAR_TRIALS = 2000
"""Enough for a sample of seven right matches at 40 % inliers, most often at 30 %."""


def likely_inliers(
    cameras: tuple[Camera, Camera],
    points: tuple[NDArray[np.float64], NDArray[np.float64]],
    *,
    max_error_px: float,
    search_band: float,
    max_trials: int,
    min_inlier_ratio: float,
    confidence: float,
    seed: int,
) -> NDArray[np.bool_] | None:
    """Which matches are near the epipolar geometry that most of them agree with.

    Args:
        cameras: of both images. If both have a known focal length the geometry is an essential
            matrix, else a fundamental matrix.
        points: matched points of both images, (M, 2) each, M at least 8, COLMAP pixels.
        max_error_px: largest Sampson error of an inlier.
        search_band, max_trials, min_inlier_ratio, confidence: see `TwoViewOptions`.
        seed: of the random samples.

    Returns:
        (M,) mask, or None where a known camera is no pinhole, so that its epipolar lines are
        curves.
    """
    known = all(camera.has_prior_focal_length for camera in cameras)
    if known:
        if not all(camera.is_perspective_pinhole() for camera in cameras):
            return None
        points = (_straightened(cameras[0], points[0]), _straightened(cameras[1], points[1]))
        if not all(np.isfinite(xy).all() for xy in points):
            return None
    clear_px = CLEAR_BAND * max_error_px
    errors = sampson_errors(_quick_search(points, clear_px, seed), *points)
    if np.count_nonzero(errors <= clear_px) >= max(CLEAR_RATIO * len(errors), CLEAR_COUNT):
        return errors <= max_error_px
    trials = trials_needed(min_inlier_ratio, 5 if known else 7, confidence)
    ransac = {
        "max_iterations": min(max_trials, trials),
        "min_iterations": min(max_trials, 100),
        "max_epipolar_error": search_band * max_error_px,
        "success_prob": confidence,
        "seed": seed + 1,  # its random generator does not advance from 0
    }
    if known:
        fundamental = _essential_search(cameras, points, ransac)
    else:
        fundamental, _ = poselib.estimate_fundamental(*points, ransac, {})
    return sampson_errors(fundamental, *points) <= max_error_px


def trials_needed(inlier_ratio: float, sample_size: int, confidence: float) -> int:
    """Samples to draw until one has no outlier, with the probability ``confidence`` (below 1).

    log(1 - confidence) / log(1 - ratio^size), Fischler and Bolles 1981; a very large number where
    the ratio is 0.
    """
    clean = min(max(inlier_ratio**sample_size, 1e-15), 1 - 1e-15)
    return math.ceil(math.log(1 - confidence) / math.log1p(-clean))


def sampson_errors(
    fundamental: NDArray[np.float64], points0: NDArray[np.float64], points1: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(M,) Sampson errors in pixels (Hartley and Zisserman, equation 11.9) of (M, 2) points.

    fundamental: (3, 3), ``x1^T F x0 = 0``. NaN where a point has no epipolar line.
    """
    a, b = (np.column_stack([points, np.ones(len(points))]) for points in (points0, points1))
    lines1, lines0 = a @ fundamental.T, b @ fundamental
    residual = np.abs(np.sum(b * lines1, axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = np.sum(lines0[:, :2] ** 2, axis=1) + np.sum(lines1[:, :2] ** 2, axis=1)
        return np.asarray(residual / np.sqrt(slopes))


def _straightened(camera: Camera, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Undistorted points: pixels from the principal point of a pinhole camera of the same focal
    length."""
    return np.asarray(camera.cam_from_img(points), np.float64) * camera.mean_focal_length()


def _essential_search(
    cameras: tuple[Camera, Camera],
    points: tuple[NDArray[np.float64], NDArray[np.float64]],
    ransac: dict[str, float],
) -> NDArray[np.float64]:
    """(3, 3) fundamental matrix of undistorted points, from samples of five."""
    focal_px = [camera.mean_focal_length() for camera in cameras]
    pinholes = [
        {"model": "SIMPLE_PINHOLE", "width": c.width, "height": c.height, "params": [f, 0.0, 0.0]}
        for c, f in zip(cameras, focal_px, strict=True)
    ]
    pose, _ = poselib.estimate_relative_pose(*points, *pinholes, ransac, {})
    x, y, z = pose.t
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ pose.R
    to_ray0, to_ray1 = (np.diag([1 / f, 1 / f, 1]) for f in focal_px)
    return np.asarray(to_ray1 @ essential @ to_ray0)


def _quick_search(
    points: tuple[NDArray[np.float64], NDArray[np.float64]], max_error_px: float, seed: int
) -> NDArray[np.float64]:
    """(3, 3) fundamental matrix; zeros if none is found."""
    search = cv2.UsacParams()
    search.threshold = max_error_px
    search.confidence = 0.999
    search.maxIterations = CLEAR_TRIALS
    search.randomGeneratorState = seed
    search.isParallel = False
    search.sampler = cv2.SAMPLING_UNIFORM
    search.score = cv2.SCORE_METHOD_MSAC
    search.loMethod = cv2.LOCAL_OPTIM_INNER_LO
    search.loIterations = 10
    search.loSampleSize = 14
    search.final_polisher = cv2.LSQ_POLISHER
    search.final_polisher_iterations = 3
    try:
        fundamental, _ = cv2.findFundamentalMat(*points, search)
    except cv2.error:  # OpenCV 5 fails an assertion where its samples leave it without a model
        return np.zeros((3, 3))
    if fundamental is None or fundamental.shape != (3, 3):
        return np.zeros((3, 3))
    return np.asarray(fundamental, np.float64)
