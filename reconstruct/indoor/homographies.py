"""Verification of an image pair by several homographies: indoors most surfaces are planar."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from reconstruct.config import Section


class HomographyConfig(Section):
    """Several homographies per pair, estimated one after the other, as InLoc verifies pairs."""

    planes: int = Field(5, ge=1)
    """Largest number of planes."""
    max_error: float = Field(0.0125, gt=0)
    """Largest transfer error of an inlier, as a share of the longer edge of the map's image: 20
    pixels of 1600, 8 of 640. It tolerates surfaces that are not quite planar."""
    min_inliers: int = Field(8, ge=4)
    """A plane with fewer matches is rejected."""


def verify_by_homographies(
    points0: NDArray[np.floating],
    points1: NDArray[np.floating],
    config: HomographyConfig,
    *,
    max_error_px: float,
    seed: int = 0,
) -> NDArray[np.bool_]:
    """Which matches lie on one of a few planes.

    A homography is estimated by RANSAC, its inliers are removed, and the next one is estimated from
    the rest, until one has too few inliers.

    Args:
        points0: (M, 2) positions in the first image.
        points1: (M, 2) matching positions in the second image.
        config: Settings.
        max_error_px: Largest transfer error of an inlier, in pixels of the second image.
        seed: Seed of RANSAC.

    Returns:
        (M,) bool.
    """
    kept = np.zeros(len(points0), np.bool_)
    for _ in range(config.planes):
        rest = np.flatnonzero(~kept)
        if len(rest) < config.min_inliers:
            break
        cv2.setRNGSeed(seed)
        homography, mask = cv2.findHomography(
            points0[rest].astype(np.float64),
            points1[rest].astype(np.float64),
            cv2.RANSAC,
            max_error_px,
            maxIters=2000,
            confidence=0.999,
        )
        if homography is None or int(mask.sum()) < config.min_inliers:
            break
        kept[rest[mask[:, 0] > 0]] = True
    return kept
