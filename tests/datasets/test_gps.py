from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reconstruct import colmap
from reconstruct.datasets.gps import (
    UNKNOWN_M,
    GpsConfig,
    GpsPosition,
    exif_position,
    load_gps,
    local_positions,
    read_table,
)
from reconstruct.errors import DataError, UsageError


def photo_at(path: Path, **tags: object) -> Path:
    """A photo in the south-west whose GPS tags are replaced by ``tags``."""
    ids = {"LatitudeRef": 1, "Latitude": 2, "LongitudeRef": 3, "Longitude": 4}
    ids |= {"AltitudeRef": 5, "Altitude": 6, "Error": 31}
    values: dict[str, object] = {"LatitudeRef": "S", "Latitude": (33.0, 30.0, 36.0)}
    values |= {"LongitudeRef": "W", "Longitude": (70.0, 0.0, 0.0)}
    values |= {"AltitudeRef": b"\1", "Altitude": 12.5, "Error": 3.5}
    values |= tags
    image = Image.new("RGB", (8, 8))
    exif = image.getexif()
    exif[0x8825] = {ids[name]: value for name, value in values.items() if value is not None}
    image.save(path, exif=exif)
    return path


def test_exif_tells_hemispheres_altitude_below_the_sea_and_accuracy(tmp_path: Path) -> None:
    found = exif_position(photo_at(tmp_path / "a.jpg"))
    assert found == GpsPosition(pytest.approx(-33.51), -70.0, -12.5, 3.5)
    bare = exif_position(photo_at(tmp_path / "b.jpg", Altitude=None, Error=None))
    assert bare == GpsPosition(pytest.approx(-33.51), -70.0, None, None)


@pytest.mark.parametrize(
    "tags",
    [
        {"Latitude": None},
        {"LatitudeRef": None},
        {"Latitude": (95.0, 0.0, 0.0)},
        {"Latitude": (0.0, 0.0, 0.0), "Longitude": (0.0, 0.0, 0.0)},
    ],
)
def test_what_is_no_position_counts_as_none(tmp_path: Path, tags: dict[str, object]) -> None:
    assert exif_position(photo_at(tmp_path / "a.jpg", **tags)) is None


def test_a_photo_without_or_with_broken_exif_has_no_position(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff\xe1\0\x10Exif\0\0MM\0")
    data = bytearray(photo_at(tmp_path / "c.jpg").read_bytes())
    at = data.index(b"\xff\xc0") + 5  # height and width: Pillow takes it for a bomb
    data[at : at + 4] = b"\xff" * 4
    (tmp_path / "huge.jpg").write_bytes(data)
    (tmp_path / "text.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    for name in ("a.png", "b.jpg", "none.jpg", "text.jpg"):
        assert exif_position(tmp_path / name) is None
    assert exif_position(tmp_path / "huge.jpg") == exif_position(tmp_path / "c.jpg")


def test_a_table_with_its_columns_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "gps.csv"
    path.write_text(
        "\ufeffLatitude, name, longitude, note, accuracy, altitude\n"
        '47.1,"a, b.jpg",8.5,x,0.5,400\n\n47.2,c.jpg,8.6,,,\n'
    )
    assert read_table(path) == {
        "a, b.jpg": GpsPosition(47.1, 8.5, 400.0, 0.5),
        "c.jpg": GpsPosition(47.2, 8.6),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line names the columns"),
        ("name,lat,lon\n", "first line names the columns"),
        ("name,latitude,longitude\na.jpg,47.1\n", "line 2: expected a name"),
        ("name,latitude,longitude\na.jpg,north,8\n", "line 2: expected a name"),
        ("name,latitude,longitude\na.jpg,91,8\n", "line 2"),
        ("name,latitude,longitude\na.jpg,nan,8\n", "line 2"),
        ("name,latitude,longitude,accuracy\na.jpg,1,8,0\n", "line 2"),
        ("name,latitude,longitude\na.jpg,1,8\na.jpg,1,8\n", "line 3: 'a.jpg' stands twice"),
        ('name,latitude,longitude\n"' + 200_000 * "x", "not a CSV file"),
    ],
)
def test_a_wrong_table_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "gps.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_table(path)
    assert str(path) in str(caught.value)


def test_nothing_known_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no photo has a position in exif; leave dataset\.gps out"):
        load_gps(GpsConfig(), tmp_path, ["a.jpg"])
    (tmp_path / "gps.csv").write_text("name,latitude,longitude\nphotos/a.jpg,1,8\n")
    config = GpsConfig(positions=str(tmp_path / "gps.csv"))
    with pytest.raises(DataError, match=r"names are relative to .*, e.g. a\.jpg"):
        load_gps(config, tmp_path, ["a.jpg"])


def test_the_frame_is_amid_the_photos_and_an_outlier_does_not_move_it() -> None:
    # A degree of latitude at the equator is a (1 - e2) pi / 180 = 110574.3 m in WGS 84, one of
    # longitude a pi / 180 = 111319.5 m.
    found = {
        "a": GpsPosition(0.0, 0.0, 100.0),
        "b": GpsPosition(0.001, 0.0, 110.0, 0.5),
        "c": GpsPosition(0.0, 0.001),
        "far": GpsPosition(50.0, 0.0, 100.0),
    }
    gps = local_positions(found, GpsConfig())
    assert gps.origin == (0.0005, 0.0, 100.0)
    rows = {name: gps.positions[name] - gps.positions["a"] for name in "bc"}
    np.testing.assert_allclose(rows["b"], [0, 110.5743, 10], atol=2e-3)
    np.testing.assert_allclose(rows["c"], [111.3195, 0, 0], atol=2e-3)
    np.testing.assert_allclose(gps.sigma["a"], [5, 5, 10])
    np.testing.assert_allclose(gps.sigma["b"], [0.5, 0.5, 1])
    np.testing.assert_allclose(gps.sigma["c"], [5, 5, UNKNOWN_M])
    assert not gps.has_altitudes
    back = colmap.geodetic(gps.positions["b"], gps.origin)
    np.testing.assert_allclose(back, [[0.001, 0, 110]], atol=1e-8)


def test_the_date_line_runs_through_no_scene() -> None:
    found = {"a": GpsPosition(0.0, 179.999, 0.0), "b": GpsPosition(0.0, -179.999, 0.0)}
    gps = local_positions(found, GpsConfig())
    assert abs(gps.origin[1]) == 180
    assert gps.positions["b"][0] - gps.positions["a"][0] == pytest.approx(222.639, abs=1e-3)


def test_the_identity_is_that_of_the_content() -> None:
    found = {"a": GpsPosition(0.0, 0.0, 1.0), "b": GpsPosition(0.0, 1e-4, 1.0)}
    first = local_positions(found, GpsConfig())
    assert (
        first.identity() == local_positions(dict(reversed(found.items())), GpsConfig()).identity()
    )
    for other in (
        local_positions(found | {"b": GpsPosition(0.0, 1e-4, 1.1)}, GpsConfig()),
        local_positions(found, GpsConfig(accuracy_m=4.0)),
        local_positions(found, GpsConfig(altitude="use")),
        local_positions(found, GpsConfig(altitude="ignore")),
    ):
        assert other.identity() != first.identity()
