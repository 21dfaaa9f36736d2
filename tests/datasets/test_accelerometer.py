"""Gravity from the acceleration that iPhones note in their photos."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base

from reconstruct.datasets.accelerometer import gravity_at_rest
from reconstruct.datasets.conversion import convert_photos

LENS = "iPhone 6 back camera 4.15mm f/2.2"
HALF, COS_30 = 0.5, math.sqrt(0.75)


def maker_note(acceleration: tuple[float, float, float], kind: int = 10) -> bytes:
    """Tags 1 (a version) and 8, as iPhones write them."""
    head = b"Apple iOS\0\0\1MM"
    rows = struct.pack(">HHHIiHHII", 2, 1, 9, 1, 9, 8, kind, 3, 44)
    values = [number for value in acceleration for number in (round(value * 1e6), 10**6)]
    return head + rows + bytes(4) + struct.pack(">6i", *values)


def photo(path: Path, note: bytes, orientation: int = 1, lens: str = LENS) -> Path:
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    exif.get_ifd(IFD.Exif)[Base.MakerNote] = note
    exif.get_ifd(IFD.Exif)[Base.LensModel] = lens
    Image.new("RGB", (8, 6)).save(path, exif=exif)
    return path


@pytest.mark.parametrize(
    ("acceleration", "orientation", "gravity"),
    [
        # Its right side up, seen from the front: x of the note points to the left, which is down.
        ((-1, 0, 0), 1, (0, 1, 0)),
        ((0, -1, 0), 6, (1, 0, 0)),
        ((1, 0, 0), 3, (0, -1, 0)),
        ((0, 1, 0), 8, (-1, 0, 0)),
        # The back looks 30 degrees down: the face looks up, and z of the note, into it, down.
        ((-COS_30, 0, -HALF), 1, (0, COS_30, HALF)),
        ((0, -COS_30, -HALF), 6, (COS_30, 0, HALF)),
        ((COS_30, 0, -HALF), 3, (0, -COS_30, HALF)),
        ((0, COS_30, -HALF), 8, (-COS_30, 0, HALF)),
        # Its top, which is on the left, 30 degrees lower than its bottom: down is to the left, too.
        ((-COS_30, HALF, 0), 1, (-HALF, COS_30, 0)),
        # Upright, but the picture was stored turned, with the note as it was.
        ((0, -COS_30, -HALF), 1, (0, COS_30, HALF)),
        ((HALF, -COS_30, 0), 6, (COS_30, -HALF, 0)),
        ((HALF, -COS_30, 0), 1, (HALF, COS_30, 0)),
    ],
)
def test_gravity_is_along_the_lower_side_of_the_picture(
    tmp_path: Path,
    acceleration: tuple[float, float, float],
    orientation: int,
    gravity: tuple[float, float, float],
) -> None:
    found = gravity_at_rest(photo(tmp_path / "a.jpg", maker_note(acceleration), orientation))
    np.testing.assert_allclose(found, gravity, atol=1e-5)


@pytest.mark.parametrize(
    ("note", "orientation", "lens"),
    [
        (b"", 1, LENS),
        (b"Apple iOS\0", 1, LENS),
        (maker_note((-1, 0, 0))[:-4], 1, LENS),
        (maker_note((-1, 0, 0), kind=5), 1, LENS),
        (maker_note((-1.3, 0, 0)), 1, LENS),
        (maker_note((0, 0.2, -0.98)), 1, LENS),
        (maker_note((-1, 0, 0)), 2, LENS),
        (maker_note((-1, 0, 0)), 1, "iPhone 6 front camera 2.65mm f/2.2"),
        (maker_note((-1, 0, 0)).replace(struct.pack(">i", 10**6), bytes(4)), 1, LENS),
    ],
)
def test_what_tells_nothing(tmp_path: Path, note: bytes, orientation: int, lens: str) -> None:
    assert gravity_at_rest(photo(tmp_path / "a.jpg", note, orientation, lens)) is None


def test_a_converted_photo_tells_the_same(tmp_path: Path) -> None:
    """HEIC of a phone held upright: its pixels are turned, its note is not."""
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs the extra `heif`")
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    exif.get_ifd(IFD.Exif)[Base.MakerNote] = maker_note((0, -COS_30, -HALF))
    picture = pillow_heif.from_pillow(Image.new("RGB", (64, 48)))
    picture.save(tmp_path / "a.heic", exif=exif.tobytes())
    found = convert_photos(tmp_path, ["a.heic"], tmp_path / "out")
    gravity = gravity_at_rest(found.root / "a.heic.jpg")
    np.testing.assert_allclose(gravity, (0, COS_30, HALF), atol=1e-5)


def test_no_photo(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"Apple iOS\0")
    assert gravity_at_rest(tmp_path / "a.jpg") is None
