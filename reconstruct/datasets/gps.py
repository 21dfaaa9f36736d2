"""Where photos were taken: positions from their EXIF data or from a table.

They are converted at once to a local frame in metres, x to the east, y to the north, z up, with its
origin in their middle: coordinates are then small, and everything has one unit.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import numpy as np
from PIL.ExifTags import GPS, IFD
from pydantic import Field

from reconstruct import colmap
from reconstruct.config import NotIdentity, Section
from reconstruct.errors import DataError, ImageError, UsageError
from reconstruct.files import read_text
from reconstruct.geometry import Float64
from reconstruct.images import opened_exif

EXIF = "exif"
COLUMNS = ("name", "latitude", "longitude", "altitude", "accuracy")
"""Of a table of positions; the last two may be left out."""
VERTICAL = 2.0
"""Altitudes by satellite are this many times less accurate than horizontal positions."""
UNKNOWN_M = 1e4
"""Standard deviation of an altitude that is not known: more than any terrain's."""
TABLE_LIMIT_BYTES = 1 << 28


class GpsConfig(Section):
    """Section ``dataset.gps``: the model is aligned with positions, in metres."""

    positions: Annotated[str, NotIdentity] = EXIF
    """``exif``: of the photos' own data; else a CSV file whose first line names its columns: name,
    latitude, longitude (degrees), and where known altitude and accuracy (metres)."""
    accuracy_m: float = Field(5.0, gt=0)
    """Standard deviation of horizontal positions that come without one; that of altitudes is twice
    as large."""
    altitude: Literal["auto", "use", "ignore"] = "auto"
    """auto: altitudes that contradict each other, as those of drones that measure from their
    starting point, are given little weight."""


@dataclass(frozen=True, slots=True)
class GpsPosition:
    """A position in WGS 84: degrees, and metres above the ellipsoid (None: not known).

    accuracy_m: one standard deviation of the horizontal position, where it is told.
    """

    latitude: float
    longitude: float
    altitude: float | None = None
    accuracy_m: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GpsPositions:
    """Positions of photos in a local frame.

    Attributes:
        origin: Latitude and longitude in degrees and altitude in metres of the frame's origin.
        positions: Name -> (3,) metres east, north and up of the origin.
        sigma: Name -> (3,) standard deviations in metres.
        check_altitudes: Whether altitudes may turn out to contradict each other.
    """

    origin: tuple[float, float, float]
    positions: Mapping[str, Float64]
    sigma: Mapping[str, Float64]
    check_altitudes: bool

    @property
    def has_altitudes(self) -> bool:
        """Whether all altitudes are known, and count."""
        return all(sigma[2] < UNKNOWN_M for sigma in self.sigma.values())

    def identity(self) -> str:
        """SHA-256 over all of it."""
        rows = [[n, *self.positions[n], *self.sigma[n]] for n in sorted(self.positions)]
        text = json.dumps([self.origin, rows, self.check_altitudes])
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def load_gps(
    config: GpsConfig,
    root: Path,
    names: Sequence[str],
    originals: Mapping[str, str] = MappingProxyType({}),
) -> GpsPositions:
    """The positions of photos.

    Args:
        config: Where they are.
        root: Folder of the photos.
        names: Their names.
        originals: Of converted photos, the names before, which a table may have too.

    Raises:
        UsageError: The table is missing or wrong.
        DataError: No photo has a position.
    """
    if config.positions == EXIF:
        read = {name: exif_position(root / name) for name in names}
        found = {name: position for name, position in read.items() if position is not None}
        advice = "leave dataset.gps out, or give a CSV file as dataset.gps.positions"
    else:
        table = read_table(Path(config.positions))
        listed = {name: originals.get(name, name) for name in names}
        found = {name: table[listed[name]] for name in names if listed[name] in table}
        found |= {name: table[name] for name in names if name in table}
        advice = (
            f"its names are relative to {root}, e.g. {next(iter(listed.values()), 'photo.jpg')}"
        )
    if not found:
        raise DataError(f"dataset.gps: no photo has a position in {config.positions}; {advice}")
    return local_positions(found, config)


def local_positions(found: Mapping[str, GpsPosition], config: GpsConfig) -> GpsPositions:
    """Positions in the frame whose origin is their median, which outliers do not move."""
    names = sorted(found)
    given = {name: found[name].altitude for name in names}
    known = [altitude for altitude in given.values() if altitude is not None]
    ground = float(np.median(known)) if known else 0.0
    rows = np.array(
        [
            (found[n].latitude, found[n].longitude, ground if given[n] is None else given[n])
            for n in names
        ],
        np.float64,
    )
    origin = (float(np.median(rows[:, 0])), _middle_longitude(rows[:, 1]), ground)
    local = colmap.east_north_up(rows, origin)
    sigma = {}
    for name in names:
        plane = found[name].accuracy_m or config.accuracy_m
        unknown = given[name] is None or config.altitude == "ignore"
        sigma[name] = np.array([plane, plane, UNKNOWN_M if unknown else VERTICAL * plane])
    return GpsPositions(
        origin=origin,
        positions=dict(zip(names, local, strict=True)),
        sigma=sigma,
        check_altitudes=config.altitude == "auto",
    )


def _middle_longitude(degrees: Float64) -> float:
    """The median, also where positions lie on both sides of the date line."""
    around = (degrees - degrees[0] + 180) % 360 - 180
    return float((degrees[0] + np.median(around) + 180) % 360 - 180)


def exif_position(path: Path) -> GpsPosition | None:
    """The position in a photo's EXIF data; None where there is none, or none that can be."""
    try:
        with opened_exif(path) as exif:
            tags: Mapping[int, Any] = exif.get_ifd(IFD.GPSInfo)
            south, west = tags[GPS.GPSLatitudeRef] == "S", tags[GPS.GPSLongitudeRef] == "W"
            latitude = _degrees(tags[GPS.GPSLatitude]) * (-1 if south else 1)
            longitude = _degrees(tags[GPS.GPSLongitude]) * (-1 if west else 1)
            height = float(tags[GPS.GPSAltitude]) if GPS.GPSAltitude in tags else None
            if height is not None and tags.get(GPS.GPSAltitudeRef, b"\0") in (1, b"\1"):
                height = -height
            accuracy = float(tags.get(GPS.GPSHPositioningError, 0.0))
    except ImageError:  # broken EXIF data tell no position
        return None
    if not any((latitude, longitude)):  # where receivers without a fix say they are
        return None
    return _checked(latitude, longitude, height, accuracy if accuracy > 0 else None)


def _checked(
    latitude: float, longitude: float, altitude: float | None, accuracy_m: float | None
) -> GpsPosition | None:
    possible = abs(latitude) <= 90 and abs(longitude) <= 180
    possible &= altitude is None or abs(altitude) < 1e5
    possible &= accuracy_m is None or 0 < accuracy_m < 1e5
    return GpsPosition(latitude, longitude, altitude, accuracy_m) if possible else None


def _degrees(value: Any) -> float:
    degrees, minutes, seconds = (float(part) for part in value)
    return degrees + minutes / 60 + seconds / 3600


def read_table(path: Path) -> dict[str, GpsPosition]:
    """Name -> position from a CSV file. Raises UsageError naming the line that is wrong."""
    try:
        text = read_text(path, TABLE_LIMIT_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path}: cannot be read as a table of positions ({error}); give `exif` or a CSV "
            "file as dataset.gps.positions"
        ) from error
    try:
        return _positions(path, text)
    except csv.Error as error:
        raise UsageError(f"{path}: not a CSV file ({error})") from error


def _positions(path: Path, text: str) -> dict[str, GpsPosition]:
    lines = csv.reader(text.removeprefix("\ufeff").splitlines(), skipinitialspace=True)
    head = [column.strip().lower() for column in next(lines, [])]
    if not set(COLUMNS[:3]) <= set(head):
        raise UsageError(
            f"{path}: the first line names the columns {', '.join(COLUMNS)} (the last two may be "
            f"left out), got {', '.join(head)[:200]!r}"
        )
    result: dict[str, GpsPosition] = {}
    for row in lines:
        if not any(cell.strip() for cell in row):
            continue
        cells = {name: cell.strip() for name, cell in zip(head, row, strict=False)}
        position = _parse(cells)
        if position is None:
            raise UsageError(
                f"{path}, line {lines.line_num}: expected a name, latitude -90 to 90, longitude "
                f"-180 to 180, and metres or nothing, got {', '.join(row)[:200]!r}"
            )
        if cells["name"] in result:
            raise UsageError(f"{path}, line {lines.line_num}: {cells['name']!r} stands twice")
        result[cells["name"]] = position
    return result


def _parse(cells: Mapping[str, str]) -> GpsPosition | None:
    try:
        latitude, longitude = float(cells["latitude"]), float(cells["longitude"])
        altitude, accuracy = (float(c) if (c := cells.get(k, "")) else None for k in COLUMNS[3:])
    except (KeyError, ValueError):
        return None
    return _checked(latitude, longitude, altitude, accuracy) if cells["name"] else None
