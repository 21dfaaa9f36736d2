"""Lists of images with intrinsics, in Aachen's form."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconstruct.colmap import is_camera_model
from reconstruct.errors import UsageError
from reconstruct.storage.queries import read_intrinsics, write_intrinsics
from reconstruct.types import Intrinsics

RADIAL = Intrinsics(model="SIMPLE_RADIAL", size=(1600, 1200), params=(1469.2, 800.0, 600.0, -0.03))


def _read(tmp_path: Path, text: str) -> dict[str, Intrinsics | None]:
    path = tmp_path / "queries.txt"
    path.write_text(text, encoding="utf-8")
    return read_intrinsics(path, is_camera_model)


def test_names_with_spaces_and_without_intrinsics(tmp_path: Path) -> None:
    text = (
        "# comment\n\nq/a b.jpg SIMPLE_RADIAL 1600 1200 1469.2 800 600 -0.03\n"
        "q/my photo.jpg\nq/c.jpg PINHOLE 10 20 1 2 3 4\n"
    )
    found = _read(tmp_path, text)
    assert found == {
        "q/a b.jpg": RADIAL,
        "q/my photo.jpg": None,
        "q/c.jpg": Intrinsics(model="PINHOLE", size=(10, 20), params=(1.0, 2.0, 3.0, 4.0)),
    }


def test_round_trip(tmp_path: Path) -> None:
    rows = [("b.jpg", RADIAL), ("a/x y.jpg", RADIAL)]
    write_intrinsics(tmp_path / "list.txt", rows)
    assert list(read_intrinsics(tmp_path / "list.txt", is_camera_model).items()) == rows


def test_names_that_look_like_comments_come_back(tmp_path: Path) -> None:
    rows = [("#1.jpg", RADIAL), (" # 2.jpg", RADIAL), ("a\u2028b.jpg", RADIAL)]
    write_intrinsics(tmp_path / "list.txt", rows)
    assert list(read_intrinsics(tmp_path / "list.txt", is_camera_model).items()) == rows


def test_tabs_between_the_words(tmp_path: Path) -> None:
    assert _read(tmp_path, "q/a b.jpg\tSIMPLE_RADIAL\t1600 1200 1469.2 800 600 -0.03\r\n") == {
        "q/a b.jpg": RADIAL
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.jpg SIMPLE_PINHOLE 10 20 -5 5 10", "focal length above 0"),
        ("a.jpg SIMPLE_PINHOLE 10 20 0 5 10", "focal length above 0"),
        ("a.jpg SIMPLE_PINHOLE 10 20 nan 5 10", "finite numbers"),
        ("a.jpg SIMPLE_PINHOLE 10 20 5 inf 10", "finite numbers"),
        ("a.jpg SIMPLE_PINHOLE 10 20", "finite numbers"),
        ("a.jpg SIMPLE_PINHOLE 0 20 5 5 10", "no size of a photo"),
        ("a.jpg SIMPLE_PINHOLE 10 -20 5 5 10", "no size of a photo"),
        ("a.jpg SIMPLE_PINHOLE 10 9999999999999999999 5 5 10", "no size of a photo"),
    ],
)
def test_impossible_intrinsics_are_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UsageError, match=rf"queries\.txt:2: .*{message}"):
        _read(tmp_path, f"\n{line}\n")


def test_listed_twice(tmp_path: Path) -> None:
    line = "a.jpg SIMPLE_PINHOLE 10 20 5 5 10\n"
    assert len(_read(tmp_path, line + line)) == 1
    with pytest.raises(UsageError, match="listed twice with different intrinsics"):
        _read(tmp_path, line + "a.jpg SIMPLE_PINHOLE 10 20 6 5 10\n")


@pytest.mark.parametrize("line", ["a.jpg WIDE 10 20 5", "a.jpg PINHOLE 10", "a.jpg PINHOLE x 2 3"])
def test_a_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(UsageError, match=r"queries\.txt:1"):
        _read(tmp_path, line + "\n")


def test_nothing(tmp_path: Path) -> None:
    assert _read(tmp_path, "\n# nothing\n") == {}
    with pytest.raises(UsageError, match="nowhere"):
        read_intrinsics(tmp_path / "nowhere.txt", is_camera_model)
