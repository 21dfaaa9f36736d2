"""GPS positions in photos, against where the model puts the cameras."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.ExifTags import GPS, IFD

from reconstruct.errors import EstimationError
from reconstruct.evaluation.poses import similarity
from reconstruct.geometry import Float64

EQUATOR_M, FLATTENING = 6378137.0, 1 / 298.257223563
"""Of the ellipsoid WGS 84."""
LEAST = 4
"""Photos with a position below which an alignment says nothing: three always fit."""


def gps_position(path: Path) -> tuple[float, float, float] | None:
    """Latitude and longitude in degrees and altitude in metres of a photo's EXIF; None: absent."""
    try:
        with Image.open(path) as image:
            tags: Mapping[int, Any] = image.getexif().get_ifd(IFD.GPSInfo)
        latitude = _degrees(tags[GPS.GPSLatitude]) * (-1 if tags[GPS.GPSLatitudeRef] == "S" else 1)
        east = _degrees(tags[GPS.GPSLongitude])
        longitude = east * (-1 if tags[GPS.GPSLongitudeRef] == "W" else 1)
        height = float(tags.get(GPS.GPSAltitude, 0.0))
        below = tags.get(GPS.GPSAltitudeRef, b"\0") in (1, b"\1")
    except (OSError, KeyError, ValueError, TypeError, ZeroDivisionError, SyntaxError):
        return None
    position = (latitude, longitude, -height if below else height)
    return position if all(map(math.isfinite, position)) and any(position[:2]) else None


def _degrees(value: Any) -> float:
    degrees, minutes, seconds = (float(part) for part in value)
    return degrees + minutes / 60 + seconds / 3600


def local_metres(positions: Float64) -> Float64:
    """(N, 3) latitude, longitude, altitude -> (N, 3) metres east, north and up of their mean.

    By the ellipsoid's radii of curvature at the mean latitude: exact to a millimetre per metre over
    some kilometres, which is more than a photo's GPS.
    """
    mean = positions.mean(0)
    latitude = math.radians(mean[0])
    square = FLATTENING * (2 - FLATTENING)
    bend = 1 - square * math.sin(latitude) ** 2
    north = EQUATOR_M * (1 - square) / bend**1.5
    east = EQUATOR_M / math.sqrt(bend) * math.cos(latitude)
    offset = np.radians(positions[:, :2] - mean[:2])
    return np.column_stack([offset[:, 1] * east, offset[:, 0] * north, positions[:, 2] - mean[2]])


def gps_residuals_m(
    positions: Mapping[str, tuple[float, float, float]], centers: Mapping[str, Float64]
) -> dict[str, float]:
    """Photo -> distance between GPS and camera after the best similarity; empty if undetermined."""
    common = sorted(set(positions) & set(centers))
    if len(common) < LEAST:
        return {}
    target = local_metres(np.array([positions[name] for name in common]))
    source = np.array([centers[name] for name in common])
    try:
        scale, rotation, translation = similarity(source, target)
    except EstimationError:  # all on one line
        return {}
    away = scale * source @ rotation.T + translation - target
    return dict(zip(common, np.linalg.norm(away, axis=1).tolist(), strict=True))
