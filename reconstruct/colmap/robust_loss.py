"""The scale of a Cauchy loss, from the residuals that it is for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EFFICIENT = 2.385
"""In standard deviations of the residuals; if these are normally distributed, the loss is then as
good as squares with 95 % of the data (Holland and Welsch, 1977)."""
NEAREST = 0.25
"""Share of the residuals that tells how exact good ones are."""
MIN_SCALE_PX = 0.02
"""Keypoints are stored to some thousandths of a pixel."""


def efficient_scale_px(squares: NDArray[np.float64]) -> float:
    """The scale for residuals in two dimensions, given their (N,) squared lengths in pixels.

    The standard deviation of a coordinate is estimated from the nearest quarter of the residuals,
    which are good ones even where most are not: a quarter of a normal distribution in two
    dimensions lies within sqrt(-2 log(3/4)) of them.
    """
    if not len(squares):
        return MIN_SCALE_PX
    nearest = float(np.quantile(np.nan_to_num(squares, nan=np.inf), NEAREST))
    return max(MIN_SCALE_PX, EFFICIENT * float(np.sqrt(nearest / (-2 * np.log(1 - NEAREST)))))
