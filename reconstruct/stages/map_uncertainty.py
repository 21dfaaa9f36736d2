"""What a mapped model says of its own errors: uncertainty.txt beside it, and two figures."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reconstruct import colmap
from reconstruct.errors import ArtifactError, EstimationError
from reconstruct.evaluation.uncertainty import MIN_IMAGES, pose_uncertainty
from reconstruct.geometry import Float64
from reconstruct.storage.uncertainty import Deviation, read_uncertainty, write_uncertainty

logger = logging.getLogger(__name__)

MAX_IMAGES = 300
"""Memory and time grow with the square and the cube of the images: at 300 some seconds."""
FILE = "uncertainty.txt"


def write_model_uncertainty(
    model: colmap.Reconstruction,
    folder: Path,
    loss_px: float | None,
    adjusted_cameras: Collection[int],
) -> None:
    """Write uncertainty.txt into a model's folder, unless its images are too few or too many.

    Args:
        model: A model as its last bundle adjustment left it.
        folder: Where it is written.
        loss_px: Scale of the Cauchy loss of that adjustment; None: squares.
        adjusted_cameras: Ids of cameras whose intrinsics were adjusted too.
    """
    if not MIN_IMAGES <= model.num_reg_images() <= MAX_IMAGES:
        return
    arrays = colmap.model_arrays(model)
    try:
        found = pose_uncertainty(arrays, loss_px, adjusted_cameras=adjusted_cameras)
    except EstimationError as error:
        logger.info("map: how far poses may be off is not known: %s", error)
        return
    deviations = found.rotation_sigmas_deg
    write_uncertainty(folder / FILE, found.names, found.position_covariances, deviations)


def model_uncertainty(folder: Path) -> dict[str, Deviation]:
    """Image -> expected errors of its pose; empty where they are not known."""
    try:
        return read_uncertainty(folder / FILE)
    except ArtifactError as error:
        logger.warning("%s; the model is taken without it", error)
        return {}


def relative_uncertainty(
    folder: Path, centers: Mapping[str, Float64]
) -> dict[str, tuple[float, float]]:
    """Image -> expected errors of its position, in percent of the extent of the cameras, and of
    its rotation, in degrees; empty where they are not known.

    The extent is the root mean square distance of the camera centres from their middle.

    Args:
        folder: The model's.
        centers: Image -> (3,) camera centre.
    """
    found = model_uncertainty(folder)
    known = np.array(list(centers.values())).reshape(-1, 3)
    extent = np.sqrt(np.square(known - known.mean(0)).sum(1).mean()) if len(known) else 0.0
    if not extent:
        return {}
    return {
        name: (float(100 * found[name].position / extent), found[name].rotation_deg)
        for name in centers
        if name in found
    }


def uncertainty_figures(model: colmap.Reconstruction, folder: Path) -> dict[str, Any]:
    """Medians of `relative_uncertainty` over a model's images."""
    arrays = colmap.model_arrays(model)
    found = relative_uncertainty(folder, dict(zip(arrays.names, arrays.centers, strict=True)))
    if not found:
        return {}
    percent, degrees = np.median(np.array(list(found.values())), axis=0)
    return {
        "position_uncertainty_percent": float(f"{percent:.3g}"),
        "rotation_uncertainty_deg": float(f"{degrees:.3g}"),
    }
