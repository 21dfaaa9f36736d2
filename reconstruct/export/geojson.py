"""Where photos were taken, as GeoJSON (RFC 7946): for maps, where positions are known in WGS 84."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
