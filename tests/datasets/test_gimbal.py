"""Gravity from the angles of a gimbal that DJI's drones note in their photos."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import IFD, Base

from reconstruct.datasets.gimbal import noted_gravity

XMP = (
    '<x:xmpmeta><rdf:Description drone-dji:GimbalRollDegree="{}" drone-dji:GimbalPitchDegree="{}"/>'
)


def photo(path: Path, xmp: str = "", note: bytes = b"", orientation: int = 1) -> Path:
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    if note:
        exif.get_ifd(IFD.Exif)[Base.MakerNote] = note
    Image.new("RGB", (8, 8)).save(path, exif=exif, xmp=xmp.encode())
    return path


def maker_note(make: bytes, order: str = "<", **angles: float) -> bytes:
    """Tags 1 (the maker), 9 (pitch) and 11 (roll), as TIFF lists them."""
    tags = {"pitch": 9, "roll": 11}
    rows = [struct.pack(f"{order}HHI4s", 1, 2, 4, make)]
    rows += [struct.pack(f"{order}HHIf", tags[n], 11, 1, value) for n, value in angles.items()]
    return struct.pack(f"{order}H", len(rows)) + b"".join(rows) + bytes(4)


@pytest.mark.parametrize(
    ("pitch", "gravity"),
    [
        ("+0.00", (0, 1, 0)),
        ("-90.00", (0, 0, 1)),
        ("-30.00", (0, math.sqrt(0.75), 0.5)),
        ("+30", (0, math.sqrt(0.75), -0.5)),
    ],
)
def test_pitch_is_that_of_the_view_above_the_horizon(
    tmp_path: Path, pitch: str, gravity: tuple[float, float, float]
) -> None:
    found = noted_gravity(photo(tmp_path / "a.jpg", XMP.format("+0.00", pitch)))
    np.testing.assert_allclose(found, gravity, atol=1e-12)


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_maker_note_is_read_where_there_are_no_xmp_data(tmp_path: Path, order: str) -> None:
    note = maker_note(b"DJI\0", order, pitch=-30, roll=0)
    found = noted_gravity(photo(tmp_path / "a.jpg", note=note))
    np.testing.assert_allclose(found, (0, math.sqrt(0.75), 0.5), atol=1e-6)


@pytest.mark.parametrize(
    ("xmp", "note", "orientation"),
    [
        ("", b"", 1),
        (XMP.format("+5.00", "-30.00"), b"", 1),
        (XMP.format("+180.00", "-30.00"), b"", 1),
        (XMP.format("+0.00", "-30.00"), b"", 6),
        (XMP.format("+0.00", "-100.00"), b"", 1),
        (XMP.format("+0.00", "down"), b"", 1),
        ("", maker_note(b"ABC\0", pitch=-30, roll=0), 1),
        ("", maker_note(b"DJI\0", pitch=-30), 1),
        ("", maker_note(b"DJI\0", pitch=math.nan, roll=0), 1),
        ("", maker_note(b"DJI\0", pitch=-30, roll=0)[:-12], 1),
    ],
)
def test_what_tells_nothing(tmp_path: Path, xmp: str, note: bytes, orientation: int) -> None:
    assert noted_gravity(photo(tmp_path / "a.jpg", xmp, note, orientation)) is None


def test_no_photo(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"DJI\0")
    assert noted_gravity(tmp_path / "a.jpg") is None


@pytest.mark.real
def test_a_photo_of_a_drone(shared_data: Path) -> None:
    found = noted_gravity(shared_data / "sheffield-cross" / "images" / "DJI_0054.JPG")
    assert found is not None
    assert math.degrees(math.asin(found[2])) == pytest.approx(75.1, abs=1e-4)
