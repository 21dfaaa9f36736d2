"""Photos of a fisheye lens, told on the command line: the square as such a lens shows it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Command
from PIL import Image
from PIL.ExifTags import IFD, Base

from reconstruct import colmap
from reconstruct.datasets.synthetic import SyntheticDataset
from reconstruct.evaluation.poses import similarity
from reconstruct.geometry import projection_center

MODEL, SIZE = "OPENCV_FISHEYE", (320, 240)
PARAMS = [200.0, 205.0, 160.0, 120.0, 0.05, -0.01, 0.0, 0.0]


def draw_fisheye(square: SyntheticDataset, folder: Path, suffix: str) -> Path:
    """The photos as the lens shows them, in a new folder; black where the pinhole camera saw
    nothing. COLMAP reads the focal length from the EXIF data of JPEG, not of PNG."""
    folder.mkdir()
    exif = Image.Exif()
    exif.get_ifd(IFD.Exif)[Base.FocalLengthIn35mmFilm] = 22
    model = colmap.read_model(square.reference)
    lens = colmap.make_camera(MODEL, PARAMS, SIZE)
    column, row = np.meshgrid(np.arange(SIZE[0]) + 0.5, np.arange(SIZE[1]) + 0.5)
    rays = lens.cam_from_img(np.stack([column.ravel(), row.ravel()], 1))
    for image in model.images.values():
        seen = image.camera.img_from_cam(np.column_stack([rays, np.ones(len(rays))]))
        at = (np.asarray(seen, np.float32) - 0.5).reshape(SIZE[1], SIZE[0], 2)
        with Image.open(square.images / image.name) as photo:
            drawn = cv2.remap(np.asarray(photo), at[..., 0], at[..., 1], cv2.INTER_CUBIC)
        Image.fromarray(drawn).save(folder / f"{Path(image.name).stem}{suffix}", exif=exif)
    return folder


def position_error_m(output: Path, square: SyntheticDataset) -> float:
    """Largest, of a model of all six photos."""
    poses = colmap.model_poses(colmap.read_model(output / "sparse"))
    true = colmap.model_poses(colmap.read_model(square.reference))
    assert len(poses) == 6
    names = sorted(poses)
    found = np.array([projection_center(poses[name]) for name in names])
    wanted = np.array([projection_center(true[f"{Path(name).stem}.jpg"]) for name in names])
    scale, rotation, shift = similarity(found, wanted)
    return float(np.abs(scale * found @ rotation.T + shift - wanted).max())


@pytest.fixture
def arguments(chain: Path, tmp_path: Path) -> list[object]:
    return ["run", chain, "-q", "--output", tmp_path / "out", "--images"]


def test_a_known_fisheye_camera(
    command: Command, arguments: list[object], square: SyntheticDataset, tmp_path: Path
) -> None:
    photos = draw_fisheye(square, tmp_path / "photos", ".png")
    known = f"dataset.cameras={{model: {MODEL}, params: {PARAMS}}}"
    assert command(*arguments, photos, "--set", known).status == 0
    error_m = position_error_m(tmp_path / "out", square)
    assert error_m < 0.06, "and twice that, if it were a pinhole camera"


def test_a_fisheye_camera_by_exif(
    command: Command, arguments: list[object], square: SyntheticDataset, tmp_path: Path
) -> None:
    photos = draw_fisheye(square, tmp_path / "photos", ".jpg")
    guessed = f"dataset.camera_model={MODEL}"
    assert command(*arguments, photos, "--set", guessed, "--set", "map=null").status == 0
    for camera in colmap.database_cameras(tmp_path / "out" / "database.db").values():
        assert camera.model.name == MODEL
        assert camera.params[:2] == pytest.approx(PARAMS[:2], rel=0.05)
    assert len(colmap.verified_counts(tmp_path / "out" / "database.db")) == 15


def test_without_a_focal_length_the_run_says_what_it_needs(
    command: Command, arguments: list[object], square: SyntheticDataset, tmp_path: Path
) -> None:
    photos = draw_fisheye(square, tmp_path / "photos", ".png")
    outcome = command(*arguments, photos, "--set", f"dataset.camera_model={MODEL}")
    assert outcome.status == 2
    assert "OPENCV_FISHEYE, but the photos do not tell their focal length" in outcome.err
