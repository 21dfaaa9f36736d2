"""``geojson``: the cameras of a model that was aligned with GPS, as GeoJSON (RFC 7946) for maps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reconstruct import colmap
from reconstruct.export.result import Result
from reconstruct.geometry import projection_center


def write(result: Result, target: Path) -> None:
    """Write a point for each camera. Raises UsageError if the model is not aligned with GPS."""
    poses = colmap.model_poses(result.model)
    centers = np.array([projection_center(pose) for pose in poses.values()])
    rows = colmap.geodetic(centers, result.origin)
    positions = {
        name: (float(row[0]), float(row[1]), float(row[2]))
        for name, row in zip(poses, rows, strict=True)
    }
    text = json.dumps(feature_collection(positions), indent=1, ensure_ascii=False)
    target.write_text(text + "\n", encoding="utf-8")


def feature_collection(positions: Mapping[str, tuple[float, float, float]]) -> dict[str, Any]:
    """A point for each photo, with its name as a property, sorted by name.

    Args:
        positions: name -> latitude and longitude in degrees, altitude in metres above
            the ellipsoid.

    Returns:
        A JSON-able FeatureCollection. Its coordinates are longitude, latitude, altitude.
    """
    features = [
        {
            "type": "Feature",
            "properties": {"name": name},
            "geometry": {"type": "Point", "coordinates": [longitude, latitude, altitude]},
        }
        for name, (latitude, longitude, altitude) in sorted(positions.items())
    ]
    return {"type": "FeatureCollection", "features": features}
