"""Aachen Day-Night's layout, on the synthetic square."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from reconstruct import colmap
from reconstruct.config import validate
from reconstruct.datasets.aachen import AachenConfig, load_aachen
from reconstruct.datasets.nvm import read_nvm
from reconstruct.datasets.queries import find_queries
from reconstruct.errors import DataError, UsageError
from reconstruct.geometry import projection_center
from reconstruct.storage.poses import read_poses
from reconstruct.storage.queries import read_intrinsics

DAY, NIGHT = "query/day/synthetic/day-00.jpg", "query/night/synthetic/night-00.jpg"


def _config(root: Path, **settings: str) -> AachenConfig:
    return validate(AachenConfig, {"format": "aachen", "root": str(root), **settings}, "test")


@pytest.fixture
def copy(town: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(town, tmp_path / "aachen"))


def _edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


def test_names_queries_and_groups(town: Path, tmp_path: Path) -> None:
    dataset = load_aachen(_config(town), tmp_path)
    assert len(dataset.names) == 12
    assert {q.name: q.group for q in dataset.queries} == {
        DAY: "day",
        DAY.replace("00", "01"): "day",
        NIGHT: "night",
        NIGHT.replace("00", "01"): "night",
    }
    assert dataset.skipped == {}
    assert dataset.poses is not None
    model = colmap.read_model(dataset.poses)
    assert model.num_reg_images() == 8
    known = dataset.queries[0].intrinsics
    assert known is not None
    assert (known.model, known.size, known.params[3]) == ("SIMPLE_RADIAL", (240, 180), -0.05)


def test_points_of_the_reference_project_to_their_pixels(town: Path, tmp_path: Path) -> None:
    dataset = load_aachen(_config(town), tmp_path)
    assert dataset.poses is not None
    model = colmap.read_model(dataset.poses)
    tracks = colmap.Tracks(model)
    assert model.num_points3D() > 300
    for image in model.images.values():
        ids = tracks.points(image.name)
        seen = np.flatnonzero(ids >= 0)
        assert len(seen) > 50
        pose = image.cam_from_world().matrix()
        in_camera = tracks.positions(ids[seen]) @ pose[:, :3].T + pose[:, 3]
        pixels = image.camera.img_from_cam(in_camera)
        written = np.array([image.point2D(int(i)).xy for i in seen])
        np.testing.assert_allclose(pixels, written, atol=1e-4)


def test_ground_truth_is_that_of_the_queries(town: Path) -> None:
    truth = read_poses(town / "ground_truth.txt")
    assert sorted(truth) == sorted([DAY, DAY.replace("00", "01"), NIGHT, NIGHT.replace("00", "01")])
    centers = np.array([projection_center(pose) for pose in truth.values()])
    radius = np.linalg.norm(centers[:, :2], axis=1)
    assert ((radius > 7.9) & (radius < 9.5)).all()


def test_reference_as_a_colmap_model(copy: Path, tmp_path: Path) -> None:
    written = load_aachen(_config(copy), tmp_path / "one").poses
    assert written is not None
    (copy / "3D-models" / "synthetic.nvm").unlink()
    shutil.copytree(written, copy / "3D-models" / "aachen_v_1_1")
    dataset = load_aachen(_config(copy), tmp_path / "two")
    assert dataset.poses == copy / "3D-models" / "aachen_v_1_1"
    assert len(dataset.names) == 12


def test_night_only(town: Path, tmp_path: Path) -> None:
    config = _config(town, queries="night_time_queries_with_intrinsics.txt")
    dataset = load_aachen(config, tmp_path)
    assert {q.group for q in dataset.queries} == {"night"}
    assert not any("day" in name for name in dataset.names)


def test_missing_photos_are_named_and_skipped(copy: Path, tmp_path: Path) -> None:
    for name in ("db/0003.jpg", NIGHT):
        (copy / "images_upright" / name).unlink()
    dataset = load_aachen(_config(copy), tmp_path)
    assert sorted(dataset.skipped) == ["db/0003.jpg", NIGHT]
    assert len(dataset.names) == 10
    assert NIGHT not in dataset.query_names


@pytest.mark.parametrize("name", ["db/0001.jpg", DAY])
def test_a_photo_of_another_size_is_an_error(copy: Path, tmp_path: Path, name: str) -> None:
    cv2.imwrite(str(copy / "images_upright" / name), np.zeros((90, 120, 3), np.uint8))
    with pytest.raises(UsageError, match=r"120 x 90 pixels.*240 x 180"):
        load_aachen(_config(copy), tmp_path)


def test_queries_listed_twice(copy: Path, tmp_path: Path) -> None:
    path = copy / "queries" / "day_time_queries_with_intrinsics.txt"
    _edit(path, lambda text: text + text)
    assert len(load_aachen(_config(copy), tmp_path).queries) == 4
    _edit(path, lambda text: text + text.replace(" -0.05", " -0.06"))
    with pytest.raises(UsageError, match="twice with different intrinsics"):
        load_aachen(_config(copy), tmp_path)


def test_the_reference_follows_its_file(copy: Path, tmp_path: Path) -> None:
    poses = load_aachen(_config(copy), tmp_path).poses
    assert poses is not None
    before = colmap.model_poses(colmap.read_model(poses))
    _edit(
        copy / "3D-models" / "synthetic.nvm", lambda text: text.replace("db/0000.jpg", "db/x.jpg")
    )
    dataset = load_aachen(_config(copy), tmp_path)
    assert "db/0000.jpg" in before
    assert "db/0000.jpg" not in dataset.names
    # Neither a photo nor listed intrinsics: nothing is known of it but its pose.
    assert "db/x.jpg" not in dataset.names


def test_what_is_missing_in_the_layout_is_named(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        load_aachen(_config(tmp_path / "nowhere"), tmp_path)
    with pytest.raises(UsageError, match="no such list"):
        load_aachen(_config(copy, queries="dusk*.txt"), tmp_path)
    shutil.rmtree(copy / "images_upright" / "query")
    with pytest.raises(DataError, match="no photo of the queries"):
        load_aachen(_config(copy), tmp_path)
    (copy / "3D-models" / "synthetic.nvm").unlink()
    with pytest.raises(UsageError, match="expected one reference model"):
        load_aachen(_config(copy), tmp_path)


def test_queries_of_a_folder_of_photos(town: Path, tmp_path: Path) -> None:
    root = town / "images_upright"
    names = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.jpg"))
    found, missing = find_queries(root, names, str(root / "query" / "day"))
    assert [q.name for q in found] == [name for name in names if "/day/" in name]
    assert missing == {}
    listed = tmp_path / "list.txt"
    listed.write_text(f"{NIGHT}\nquery/absent.jpg\n")
    found, missing = find_queries(root, names, str(listed))
    assert [(q.name, q.intrinsics, q.group) for q in found] == [(NIGHT, None, "list")]
    assert list(missing) == ["query/absent.jpg"]
    with pytest.raises(UsageError, match=r"inside of dataset\.images"):
        find_queries(root, names, str(tmp_path))
    with pytest.raises(UsageError, match="no such folder or list"):
        find_queries(root, names, str(tmp_path / "nowhere"))
    listed.write_text("query/absent.jpg\n")
    with pytest.raises(UsageError, match="none of the photos"):
        find_queries(root, names, str(listed))


def test_intrinsics_of_the_database_are_listed(town: Path) -> None:
    path = town / "3D-models" / "database_intrinsics.txt"
    listed = read_intrinsics(path, colmap.is_camera_model)
    model = read_nvm(town / "3D-models" / "synthetic.nvm")
    for camera in model.cameras:
        known = listed[camera.name]
        assert known is not None
        assert known.params[0] == camera.focal_px
        assert known.params[3] == -camera.radial
