"""Which way things fall in a photo of an iPhone or iPad, by the acceleration that it notes.

Tag 8 of Apple's maker note is a vector in units of g. ExifTool's documentation says of it: as seen
from the front of the phone x points to its left, y to its bottom, z into its face. It is what an
accelerometer at rest measures, so it points up, away from the earth; ExifTool's source says that
Apple's own documentation has all signs reversed, which is gravity along x to the right, y to the
top, z out of the face. The sensor's rows run along the longer side of the phone: x of the camera
(to the right in the picture as the sensor gives it) points to the phone's bottom, y (down) to its
left, z (ahead) out of its back.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL.ExifTags import IFD, Base

from reconstruct.errors import ImageError
from reconstruct.geometry import Float64
from reconstruct.images import opened_exif

NOTE = b"Apple iOS\0"
AT_REST = (0.9, 1.1)
"""Length of the vector, in g: a phone that is being moved measures more than gravity."""
LEAST_IN_PICTURE = 0.34
"""Of the unit vector, along the picture: less is a view within 20 degrees of straight up or down,
where the phone does not know which side of the picture is its lower one."""
DOWN: Mapping[int, tuple[int, int]] = {1: (0, 1), 3: (0, -1), 6: (1, 0), 8: (-1, 0)}
"""EXIF orientation -> where the lower side of the stored picture is; mirrored ones are left out."""
_DIRECTORY, _ACCELERATION, _RATIONAL, _MANY_TAGS = 14, 8, 10, 1000


def gravity_at_rest(path: Path) -> Float64 | None:
    """(3,) unit vector of gravity in the axes of a photo's camera (x right, y down, z ahead).

    The axes are those of the picture as it is stored. Software stores pictures turned by quarters
    (photos that were edited, or converted from HEIC) and leaves the note as it was, so that turn
    is taken in which gravity is nearest to the lower side of the picture.

    None where the photo notes none, was taken by a front camera (whose axes are others), in motion,
    or nearly straight up or down.
    """
    try:
        with opened_exif(path) as exif:
            down = DOWN.get(exif.get(Base.Orientation, 1))
            tags = exif.get_ifd(IFD.Exif)
            note, lens = tags.get(Base.MakerNote), str(tags.get(Base.LensModel, ""))
    except ImageError:
        return None
    noted = _acceleration(note)
    if noted is None or down is None or "front" in lens:
        return None
    length = float(np.linalg.norm(noted))
    if not AT_REST[0] <= length <= AT_REST[1]:
        return None
    right, below, ahead = -noted[[1, 0, 2]] / length
    if np.hypot(right, below) < LEAST_IN_PICTURE:
        return None
    turns = [(right, below), (-below, right), (-right, -below), (below, -right)]
    return np.array([*max(turns, key=lambda turned: np.dot(turned, down)), ahead])


def _acceleration(note: object) -> Float64 | None:
    """(3,) the vector of a maker note: a TIFF directory, big-endian, after 14 bytes, whose offsets
    count from the beginning of the note."""
    if not isinstance(note, bytes) or not note.startswith(NOTE):
        return None
    try:
        (count,) = struct.unpack_from(">H", note, _DIRECTORY)
        for row in range(min(count, _MANY_TAGS)):
            entry = struct.unpack_from(">HHII", note, _DIRECTORY + 2 + 12 * row)
            if entry[:3] == (_ACCELERATION, _RATIONAL, 3):
                values = np.array(struct.unpack_from(">6i", note, entry[3]), np.float64)
                return None if (values[1::2] == 0).any() else values[::2] / values[1::2]
    except struct.error:
        pass
    return None
