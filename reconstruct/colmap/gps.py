"""Positions by satellite: a local frame in metres, and priors of positions for COLMAP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pycolmap
from numpy.typing import NDArray

from reconstruct.colmap.models import Reconstruction

Prior = tuple[NDArray[np.float64], NDArray[np.float64]]
"""(3,) position of a camera and (3,) standard deviations, in the unit of the model."""


def east_north_up(geodetic: NDArray[Any], origin: Sequence[float]) -> NDArray[np.float64]:
    """Positions in the local tangent plane of a point.

    Args:
        geodetic: (N, 3) latitude and longitude in degrees, altitude in metres, of WGS 84.
        origin: The same of the frame's origin.

    Returns:
        (N, 3) metres east, north and up of the origin.
    """
    rows = np.asarray(geodetic, np.float64).reshape(-1, 3)
    return np.asarray(_wgs84().ellipsoid_to_enu(rows, *origin), np.float64)


def geodetic(positions: NDArray[Any], origin: Sequence[float]) -> NDArray[np.float64]:
    """The inverse of `east_north_up`: (N, 3) latitude, longitude and altitude."""
    rows = np.asarray(positions, np.float64).reshape(-1, 3)
    return np.asarray(_wgs84().enu_to_ellipsoid(rows, *origin), np.float64)


def _wgs84() -> pycolmap.GPSTransform:
    return pycolmap.GPSTransform(pycolmap.GPSTransformEllipsoid.WGS84)


def transform_model(
    model: Reconstruction, scale: float, rotation: NDArray[Any], translation: NDArray[Any]
) -> None:
    """Move a model in place, points and poses: x_new = scale * rotation x + translation."""
    turn = pycolmap.Rotation3d(np.asarray(rotation, np.float64))
    model.transform(pycolmap.Sim3d(scale, turn, np.asarray(translation, np.float64)))


def pose_priors(model: Reconstruction, priors: Mapping[str, Prior]) -> list[pycolmap.PosePrior]:
    """COLMAP's priors for the registered images of a model that have one, by name."""
    images = [model.images[i] for i in sorted(model.reg_image_ids())]
    return [pose_prior(image, *priors[image.name]) for image in images if image.name in priors]


def pose_prior(
    image: pycolmap.Image, position: NDArray[np.float64], sigma: NDArray[np.float64]
) -> pycolmap.PosePrior:
    """The prior of an image's position.

    Args:
        image: The image.
        position: (3,) where its camera is.
        sigma: (3,) standard deviations.
    """
    return pycolmap.PosePrior(
        pose_prior_id=image.image_id,
        corr_data_id=image.data_id,
        position=position,
        position_covariance=np.diag(np.square(sigma)),
        coordinate_system=pycolmap.PosePriorCoordinateSystem.CARTESIAN,
    )
