"""Cauchy losses: their scale, from the residuals that they are for, and their derivatives."""

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


def cauchy(
    residuals: NDArray[np.float64], scale_px: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """c^2 / 2 log(1 + |r|^2 / c^2) for N residuals r in two dimensions, with c the scale.

    Returns:
        (N,) weights w of its gradients w r, (N, 2, 2) second derivatives, and these where beyond c,
        where the loss bends downwards along r, it counts as straight.
    """
    ratios = np.square(residuals).sum(1) / scale_px**2
    weights = 1.0 / (1.0 + ratios)
    along = residuals / scale_px
    outer = along[:, :, None] * along[:, None, :]

    def curved(bend: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(weights[:, None, None] * (np.eye(2) - bend[:, None, None] * outer))

    least = 1.0 / ratios.clip(min=np.finfo(float).tiny)
    return weights, curved(2.0 * weights), curved(np.minimum(2.0 * weights, least))
