from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from reconstruct import colmap
from reconstruct.errors import UnknownNameError, UsageError
from reconstruct.export import export
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.matches import MatchStore, key_pair
from reconstruct.types import LocalFeatures


@pytest.fixture
def output(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


def test_text_is_the_same_model(output: Path) -> None:
    first, second = colmap.read_model(output / "sparse"), colmap.read_model(export(output, "text"))
    assert colmap.model_summary(first) == colmap.model_summary(second)
    before, after = colmap.model_poses(first), colmap.model_poses(second)
    assert before.keys() == after.keys()
    for name, pose in before.items():
        np.testing.assert_allclose(after[name], pose, atol=1e-12)


def test_ply_holds_every_point(output: Path) -> None:
    path = export(output, "ply")
    header = path.read_bytes().split(b"end_header")[0].decode()
    assert f"element vertex {colmap.read_model(output / 'sparse').num_points3D()}" in header


def test_nerfstudio_poses_look_along_minus_z(output: Path) -> None:
    content = json.loads(export(output, "nerfstudio").read_text())
    poses = colmap.model_poses(colmap.read_model(output / "sparse"))
    assert [frame["file_path"] for frame in content["frames"]] == sorted(poses)
    for frame in content["frames"]:
        matrix, pose = np.array(frame["transform_matrix"]), poses[frame["file_path"]]
        np.testing.assert_allclose(-matrix[:3, 2], pose[2, :3], atol=1e-9)  # the way it looks
        np.testing.assert_allclose(-matrix[:3, 1], pose[1, :3], atol=1e-9)  # down
        np.testing.assert_allclose(pose @ matrix[:, 3], 0, atol=1e-9)  # its centre
        assert (frame["w"], frame["h"], frame["cx"], frame["cy"]) == (320, 240, 160, 120)
        assert frame["fl_x"] == frame["fl_y"] > 0
        assert frame["k1"] == frame["p1"] == 0


def test_hloc_files_hold_the_same_features_and_matches(output: Path) -> None:
    folder = export(output, "hloc")
    features, matches = FeatureStore(output / "features"), MatchStore(output / "matches")
    with h5py.File(folder / "features.h5") as file:
        for name in features.fingerprints():
            found, group = features.load(name), file[name]
            np.testing.assert_array_equal(group["keypoints"][:], found.keypoints - 0.5)
            np.testing.assert_array_equal(group["descriptors"][:].T, found.descriptors)
            assert tuple(group["image_size"]) == found.image_size
    with h5py.File(folder / "matches.h5") as file:
        for pair in map(key_pair, matches.fingerprints()):
            partner = file["/".join(pair)]["matches0"][:]
            rows = np.flatnonzero(partner >= 0)
            expected = matches.load(pair)
            np.testing.assert_array_equal(np.column_stack([rows, partner[rows]]), expected)


def test_an_export_again_replaces_the_first(output: Path) -> None:
    for format_ in ("text", "hloc", "ply"):
        assert export(output, format_) == export(output, format_)


def test_nothing_to_export(tmp_path: Path) -> None:
    for format_, what in (("ply", "no mapped model"), ("hloc", "no features")):
        with pytest.raises(UsageError, match=what):
            export(tmp_path, format_)
    with pytest.raises(UnknownNameError, match=r"unknown export format 'plly' .*'ply'"):
        export(tmp_path, "plly")


def _store(output: Path, names: list[str], matches: np.ndarray) -> None:
    store = FeatureStore(output / "features")
    store.write([store.record(name, "f", LocalFeatures.empty((9, 9), 4)) for name in names])
    pairs = MatchStore(output / "matches")
    pairs.write([pairs.record((name, "z"), "f", matches) for name in names if name != "z"])


def test_hloc_cannot_tell_some_names_apart(tmp_path: Path) -> None:
    _store(tmp_path, ["a-b.jpg", "a/b.jpg", "z"], np.zeros((0, 2), np.uint32))
    with pytest.raises(UsageError, match=r"another pair of images as 'a-b\.jpg/z'"):
        export(tmp_path, "hloc")


def test_matches_of_features_that_changed(tmp_path: Path) -> None:
    _store(tmp_path, ["a", "z"], np.array([[3, 0]], np.uint32))
    with pytest.raises(UsageError, match="features changed"):
        export(tmp_path, "hloc")


def test_distortion_that_nerfstudio_has_not() -> None:
    camera = colmap.make_camera("FULL_OPENCV", [9, 9, 5, 5, *range(8)], (10, 10))
    with pytest.raises(UsageError, match="nerfstudio"):
        colmap.opencv_intrinsics(camera)
    radial = colmap.make_camera("SIMPLE_RADIAL", [9, 5, 4, 0.1], (10, 8))
    expected = {"fl_x": 9, "fl_y": 9, "cx": 5, "cy": 4, "k1": 0.1, "k2": 0, "p1": 0, "p2": 0}
    assert colmap.opencv_intrinsics(radial) == expected


def test_text_cannot_hold_a_space(output: Path) -> None:
    model = colmap.read_model(output / "sparse")
    model.images[model.reg_image_ids()[0]].name = "a photo.jpg"
    shutil.rmtree(output / "sparse")
    colmap.write_model(model, output / "sparse")
    with pytest.raises(UsageError, match=r"cannot hold the name 'a photo\.jpg'"):
        export(output, "text")
    assert not (output / "export" / "text").exists()
