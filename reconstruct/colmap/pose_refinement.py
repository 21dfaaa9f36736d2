"""The last steps of an absolute pose: refinements whose loss follows the errors of the inliers.

Of the inliers of a refined query most are within a tenth of a pixel, and some are not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pycolmap
from numpy.typing import NDArray

from reconstruct.colmap.robust_loss import efficient_scale_px

LOSS_PX: Final = 1.0
"""Largest scale of the Cauchy loss, COLMAP's own: in a wide limit are wrong matches."""
GRADIENT: Final = 1e-3
"""At which a pose is exact to some thousandths of a pixel."""
ROUNDS: Final = 2
"""Refinements, each with a loss that suits what the one before has left."""

Estimate = dict[str, Any]
"""What COLMAP says of a pose: ``cam_from_world`` or ``rig_from_world``."""


def loss_px(residuals: NDArray[np.float64]) -> float:
    """The scale of the loss that suits a pose with (N, 2) reprojection errors of its inliers."""
    return min(efficient_scale_px(np.square(residuals).sum(1)), LOSS_PX)


def refined(
    estimate: Estimate,
    pose: str,
    residuals: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    refine: Callable[[pycolmap.Rigid3d, pycolmap.AbsolutePoseRefinementOptions], Estimate | None],
    *,
    refine_focal: bool = False,
) -> Estimate:
    """An estimate whose pose is refined on its inliers.

    Args:
        estimate: What RANSAC found.
        pose: The name of its pose.
        residuals: (3, 4) pose -> (N, 2) reprojection errors of the inliers, in pixels.
        refine: Refines a pose; None: COLMAP could not.
        refine_focal: Whether the focal length is refined too.
    """
    options = pycolmap.AbsolutePoseRefinementOptions()
    options.refine_focal_length = refine_focal
    options.gradient_tolerance = GRADIENT
    for _ in range(ROUNDS):
        options.loss_function_scale = loss_px(residuals(estimate[pose].matrix()))
        estimate = refine(estimate[pose], options) or estimate
    return estimate
