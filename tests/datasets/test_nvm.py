"""VisualSFM's models: the content of a file, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reconstruct.datasets.aachen import nvm_model
from reconstruct.datasets.nvm import read_nvm, write_nvm
from reconstruct.errors import UsageError
from reconstruct.types import Intrinsics

TEXT = """NVM_V3

2
db/first"one.jpg 500 0.7071067811865476 0 0 0.7071067811865476 1 2 3 0.05 0
db/2.jpg\t400 1 0 0 0 0 0 -4 0 0

2
0 0 1 10 20 30 2 0 7 100.5 50.25 1 3 20 30
5 5 5 0 0 0 1 1 9 1 2

0
"""


def _write(tmp_path: Path, text: str = TEXT) -> Path:
    path = tmp_path / "model.nvm"
    path.write_text(text, encoding="utf-8")
    return path


def test_cameras_and_points(tmp_path: Path) -> None:
    model = read_nvm(_write(tmp_path))
    first, second = model.cameras
    assert (first.name, first.focal_px, first.radial) == ("db/first one.jpg", 500.0, 0.05)
    # A quarter turn about z of the centre (1, 2, 3) is (-2, 1, 3); the translation is its negative.
    rotation = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    np.testing.assert_allclose(first.cam_from_world[:, :3], rotation, atol=1e-12)
    np.testing.assert_allclose(first.cam_from_world[:, 3], [2, -1, -3], atol=1e-12)
    np.testing.assert_allclose(second.cam_from_world[:, 3], [0, 0, 4])
    np.testing.assert_array_equal(model.xyz, [[0, 0, 1], [5, 5, 5]])
    np.testing.assert_array_equal(model.observations, [[0, 0], [0, 1], [1, 1]])
    np.testing.assert_array_equal(model.positions, [[100.5, 50.25], [20, 30], [1, 2]])


def test_round_trip(tmp_path: Path) -> None:
    model = read_nvm(_write(tmp_path))
    write_nvm(tmp_path / "again.nvm", model)
    again = read_nvm(tmp_path / "again.nvm")
    assert [c.name for c in again.cameras] == [c.name for c in model.cameras]
    for a, b in zip(again.cameras, model.cameras, strict=True):
        np.testing.assert_allclose(a.cam_from_world, b.cam_from_world, atol=1e-12)
    np.testing.assert_array_equal(again.observations, model.observations)
    np.testing.assert_array_equal(again.positions, model.positions)


def test_model_without_points_or_cameras(tmp_path: Path) -> None:
    model = read_nvm(_write(tmp_path, "NVM_V3\n\n0\n\n0\n"))
    assert not model.cameras
    assert model.xyz.shape == (0, 3)
    assert model.observations.shape == (0, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "NVM_V3"),
        ("PLY\n", "NVM_V3"),
        ("NVM_V3\n\n2\n" + TEXT.splitlines()[3], "ends before"),
        ("NVM_V3\n\n1\na.jpg 500 1 0 0\n", "model.nvm:4"),
        ("NVM_V3\n\nmany\n", "model.nvm:3"),
        (TEXT.replace("2 0 7 100.5", "3 0 7 100.5"), "model.nvm:8"),
    ],
)
def test_what_is_no_model_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_nvm(_write(tmp_path, text))


def test_as_colmap_model(tmp_path: Path) -> None:
    known: dict[str, Intrinsics | None] = {
        name: Intrinsics(model="SIMPLE_RADIAL", size=(640, 480), params=(500.0, 320.0, 240.0, 0.1))
        for name in ("db/first one.jpg", "db/2.jpg")
    }
    model = nvm_model(read_nvm(_write(tmp_path)), tmp_path, known)
    assert model.num_reg_images() == 2
    assert model.num_cameras() == 1  # equal intrinsics share one
    assert model.num_points3D() == 1  # the other is seen once
    # Without a photo and without listed intrinsics there is no size: left out.
    del known["db/2.jpg"]
    assert nvm_model(read_nvm(_write(tmp_path)), tmp_path, known).num_reg_images() == 1
