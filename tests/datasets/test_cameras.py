"""The camera of each image: given intrinsics, EXIF, sharing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reconstruct.config import validate
from reconstruct.datasets import Dataset
from reconstruct.datasets.cameras import CamerasConfig, assign, identity
from reconstruct.errors import UsageError

SIZES = {"a.jpg": (80, 60), "b.jpg": (80, 60), "s/c.jpg": (80, 60), "s/d.jpg": (60, 80)}
CAMERAS = "# comment\n1 PINHOLE 80 60 70 71 40 30\n2 SIMPLE_PINHOLE 60 80 65 30 40\n"
IMAGES = "1 1 0 0 0 0 0 0 1 a.jpg\n\n2 1 0 0 0 0 0 0 1 s/c.jpg\n\n3 1 0 0 0 0 0 0 2 s/d.jpg\n\n"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    root = tmp_path / "images"
    for name, size in SIZES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(root / name)
    model = tmp_path / "model"
    model.mkdir()
    (model / "cameras.txt").write_text(CAMERAS)
    (model / "images.txt").write_text(IMAGES)
    return Dataset(root=root, names=tuple(sorted(SIZES)))


def config(**settings: Any) -> CamerasConfig:
    return validate(CamerasConfig, settings, "test")


def groups(settings: CamerasConfig, dataset: Dataset) -> list[set[str]]:
    """Images that share a camera, the groups in the order of camera ids."""
    ids = assign(settings, dataset, SIZES).camera_ids
    return [{name for name in ids if ids[name] == i} for i in sorted(set(ids.values()))]


def test_cameras_are_told_apart_by_exif(dataset: Dataset) -> None:
    def shot(name: str, model: str | None, lens: str | None, focal_mm: float | None) -> None:
        tags = Image.Exif()
        if model is not None:
            tags[0x0110] = model
        inner = {0xA434: lens, 0x920A: focal_mm}
        tags.get_ifd(0x8769).update({k: v for k, v in inner.items() if v is not None})
        Image.new("RGB", SIZES[name]).save(dataset.root / name, exif=tags)

    settings = config(camera_sharing="exif")
    assert len(groups(settings, dataset)) == 4, "nothing is known of any"
    shot("a.jpg", "M1", "wide", 24.0)
    shot("b.jpg", "M1", "wide", 24.0)
    shot("s/c.jpg", "M1", "wide", 24.0)
    shot("s/d.jpg", "M1", "wide", 24.0)
    assert groups(settings, dataset) == [{"a.jpg", "b.jpg", "s/c.jpg"}, {"s/d.jpg"}], "by size"
    for other in (("M2", "wide", 24.0), ("M1", "tele", 24.0), ("M1", "wide", 25.0)):
        shot("b.jpg", *other)
        assert groups(settings, dataset)[1] == {"b.jpg"}
    shot("a.jpg", "M1", None, None)
    shot("b.jpg", "M1", None, None)
    assert len(groups(settings, dataset)) == 4, "a zoom may have been turned"


def test_sharing_needs_one_size(dataset: Dataset) -> None:
    alone = [{name} for name in sorted(SIZES)]
    assert groups(config(), dataset) == groups(config(camera_sharing="image"), dataset) == alone
    by_folder = [{"a.jpg", "b.jpg"}, {"s/c.jpg"}, {"s/d.jpg"}]
    assert groups(config(camera_sharing="folder"), dataset) == by_folder
    single = [{"a.jpg", "b.jpg", "s/c.jpg"}, {"s/d.jpg"}]
    assert groups(config(camera_sharing="single"), dataset) == single


def test_guesses_follow_exif_and_the_configured_model(dataset: Dataset) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 50  # 50 mm on 35 mm film: 36 mm across
    Image.new("RGB", (80, 60)).save(dataset.root / "a.jpg", exif=exif)
    found = assign(config(camera_model="OPENCV"), dataset, SIZES)
    told, untold = (found.cameras[found.camera_ids[name]] for name in ("a.jpg", "b.jpg"))
    assert told.model.name == untold.model.name == "OPENCV"
    assert told.has_prior_focal_length
    assert told.params[0] == pytest.approx(50 / np.hypot(36, 24) * 100, rel=0.03)
    assert not untold.has_prior_focal_length
    assert untold.params[0] == pytest.approx(1.2 * 80)
    assert found.known == set()


def test_a_turned_photo_keeps_its_stored_size(dataset: Dataset) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 60)).save(dataset.root / "a.jpg", exif=exif)
    found = assign(config(), dataset, SIZES)
    camera = found.cameras[found.camera_ids["a.jpg"]]
    assert (camera.width, camera.height) == (80, 60)


def test_a_model_gives_cameras_by_name_and_the_rest_is_guessed(
    dataset: Dataset, tmp_path: Path
) -> None:
    settings = config(cameras=str(tmp_path / "model"))
    found = assign(settings, dataset, SIZES)
    assert groups(settings, dataset) == [{"a.jpg", "s/c.jpg"}, {"b.jpg"}, {"s/d.jpg"}]
    assert found.known == {1, 3}
    assert found.cameras[1].params.tolist() == [70, 71, 40, 30]
    assert all(found.cameras[i].has_prior_focal_length for i in found.known)


def test_one_camera_for_all(dataset: Dataset) -> None:
    settings = config(cameras={"model": "PINHOLE", "params": [70, 70, 40, 30]})
    with pytest.raises(UsageError, match=r"s/d\.jpg: the image is 60 x 80 .* for 80 x 60"):
        assign(settings, dataset, SIZES)
    sizes = {name: size for name, size in SIZES.items() if name != "s/d.jpg"}
    found = assign(settings, dataset, sizes)
    assert (set(found.camera_ids.values()), found.known) == ({1}, {1})
    assert found.cameras[1].params.tolist() == [70, 70, 40, 30]


def test_a_given_camera_of_another_size_names_the_image(dataset: Dataset, tmp_path: Path) -> None:
    settings = config(cameras=str(tmp_path / "model"))
    with pytest.raises(UsageError, match=r"a\.jpg: the image is 40 x 30 pixels"):
        assign(settings, dataset, SIZES | {"a.jpg": (40, 30)})


def test_given_cameras_count_by_content_not_by_place(dataset: Dataset, tmp_path: Path) -> None:
    first = identity(config(cameras=str(tmp_path / "model")), dataset)
    shutil.copytree(tmp_path / "model", tmp_path / "copy")
    assert identity(config(cameras=str(tmp_path / "copy")), dataset) == first
    (tmp_path / "copy" / "cameras.txt").write_text(CAMERAS.replace("70 71", "72 71"))
    spec = {"model": "SIMPLE_PINHOLE", "params": [70, 40, 30]}
    identities = [
        first,
        identity(config(cameras=str(tmp_path / "copy")), dataset),
        identity(config(), dataset),
        identity(config(cameras=spec), dataset),
        identity(config(cameras=spec | {"params": [71, 40, 30]}), dataset),
        identity(config(camera_sharing="single"), dataset),
        identity(config(camera_model="OPENCV"), dataset),
    ]
    assert len(set(map(str, identities))) == len(identities)


def test_a_folder_without_a_model(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no COLMAP model here"):
        assign(config(cameras=str(tmp_path)), dataset, SIZES)


def test_no_images_no_cameras(dataset: Dataset) -> None:
    assert assign(config(), dataset, {}).cameras == {}
