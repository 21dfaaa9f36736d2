"""Which way things fall in a photo of a DJI drone, by the pitch that its gimbal notes.

In the XMP data (``drone-dji:GimbalPitchDegree``), or else in the maker note of the EXIF data, of
whose tags 9 and 11 are pitch and roll of the camera. Pitch is that of the view direction
above the horizon: -90 degrees is straight down. The gimbal holds the camera level from left to
right; the few photos that it did not are left out, as are those that are stored turned.
"""

from __future__ import annotations

import math
import re
import struct
from pathlib import Path

import numpy as np
from PIL.ExifTags import IFD, Base

from reconstruct.errors import ImageError
from reconstruct.geometry import Float64
from reconstruct.images import opened_exif, read_xmp

MAX_ROLL_DEG = 2.0
_FLOAT, _PITCH, _ROLL = 11, 9, 11
_MANY_TAGS = 1000


def noted_gravity(path: Path) -> Float64 | None:
    """(3,) unit vector of gravity in the axes of a photo's camera (x right, y down, z ahead).

    None where the photo notes none, or was not held level from left to right.
    """
    try:
        with opened_exif(path) as exif:
            if exif.get(Base.Orientation, 1) != 1:
                return None
            note = exif.get_ifd(IFD.Exif).get(Base.MakerNote)
        angles = _angles_of_xmp(read_xmp(path)) or _angles_of_note(note)
    except ImageError:
        return None
    if angles is None or not abs(angles[0]) <= 90 or not abs(angles[1]) <= MAX_ROLL_DEG:
        return None
    pitch = math.radians(angles[0])
    return np.array([0.0, math.cos(pitch), -math.sin(pitch)])


def _angles_of_xmp(text: str) -> tuple[float, float] | None:
    """Pitch and roll in degrees."""
    found = [
        re.search(rf'drone-dji:Gimbal{name}Degree="([+-]?\d{{1,3}}(?:\.\d{{1,9}})?)"', text)
        for name in ("Pitch", "Roll")
    ]
    pitch, roll = (None if match is None else float(match[1]) for match in found)
    return None if pitch is None or roll is None else (pitch, roll)


def _angles_of_note(note: object) -> tuple[float, float] | None:
    """Pitch and roll in degrees. The note is a TIFF directory that begins with the maker's name, in
    the byte order of the camera, also where the EXIF data around it were written again."""
    if not isinstance(note, bytes) or note[10:13] != b"DJI":
        return None
    order = "<" if note[2:4] == b"\x01\x00" else ">"
    values = {}
    try:
        (count,) = struct.unpack_from(f"{order}H", note)
        for row in range(min(count, _MANY_TAGS)):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIf", note, 2 + 12 * row)
            if kind == _FLOAT:
                values[tag] = value
    except struct.error:
        return None
    return (values[_PITCH], values[_ROLL]) if {_PITCH, _ROLL} <= set(values) else None
