"""Webcams by day and by night: what is drawn, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from reconstruct.datasets.daynight import DayNightConfig, load_daynight
from reconstruct.errors import DataError, UsageError


def write_camera(folder: Path, day: int, night: int, size: tuple[int, int] = (12, 8)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for light, count in (("day", day), ("night", night)):
        for i in range(count):
            cv2.imwrite(str(folder / f"{light}-{i}.jpg"), np.zeros((*size[::-1], 3), np.uint8))


def config(root: Path, **settings: Any) -> DayNightConfig:
    return DayNightConfig(format="daynight", images=str(root), **settings)


def test_all_pairs_where_no_more_are_asked_for(tmp_path: Path) -> None:
    write_camera(tmp_path / "a", 2, 2)
    data = load_daynight(config(tmp_path))
    d0, d1, n0, n1 = "a/day-0.jpg", "a/day-1.jpg", "a/night-0.jpg", "a/night-1.jpg"
    assert data.dataset.names == (d0, d1, n0, n1)
    assert data.pairs == {
        "day-day": ((d0, d1),),
        "day-night": ((d0, n0), (d0, n1), (d1, n0), (d1, n1)),
        "night-night": ((n0, n1),),
    }


def test_a_draw_is_bounded_and_depends_on_its_seed_alone(tmp_path: Path) -> None:
    for camera in ("a", "b"):
        write_camera(tmp_path / camera, 9, 9)
    draws = [load_daynight(config(tmp_path, photos=4, pairs=5, seed=s)) for s in (0, 0, 1)]
    assert draws[0].pairs == draws[1].pairs != draws[2].pairs
    assert [len(pairs) for pairs in draws[0].pairs.values()] == [10, 10, 10]
    assert len(draws[0].dataset.names) == 16
    assert {a.split("/")[0] == b.split("/")[0] for a, b in draws[0].pairs["day-night"]} == {True}


def test_photos_and_cameras_left_out(tmp_path: Path) -> None:
    write_camera(tmp_path / "a", 2, 1)
    write_camera(tmp_path / "b", 2, 1)
    (tmp_path / "empty").mkdir()
    data = load_daynight(config(tmp_path, leave_out=("a/day-1.jpg",)))
    assert data.pairs["day-day"] == (("b/day-0.jpg", "b/day-1.jpg"),)
    assert data.cameras == ("a", "b")
    assert "empty" in data.dataset.skipped
    assert load_daynight(config(tmp_path, cameras=("b",))).cameras == ("b",)


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--images"):
        load_daynight(config(tmp_path / "absent"))
    write_camera(tmp_path / "a", 1, 0)
    with pytest.raises(DataError, match="no pair"):
        load_daynight(config(tmp_path))
    with pytest.raises(UsageError, match=r"leave_out.*'a/day-7\.jpg'"):
        load_daynight(config(tmp_path, leave_out=("a/day-7.jpg",)))
    with pytest.raises(UsageError, match="no 'aa'"):
        load_daynight(config(tmp_path, cameras=("aa",)))
    cv2.imwrite(str(tmp_path / "a" / "night-0.jpg"), np.zeros((9, 12, 3), np.uint8))
    with pytest.raises(DataError, match=r"12 x 9, but a/day-0\.jpg has 12 x 8"):
        load_daynight(config(tmp_path))
