"""The door to COLMAP, on exact matches of a made-up scene and on the small square."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
from colmap_verification import verify_database

from reconstruct import colmap
from reconstruct.errors import EstimationError, UnknownNameError, UsageError
from reconstruct.types import ImagePair


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> tuple[pycolmap.Reconstruction, Path]:
    """A model of eight images with exact keypoints, and a database made of it by our writer."""
    return make_scene(tmp_path_factory.mktemp("exact"), focal_px=1000)


def make_scene(folder: Path, focal_px: float) -> tuple[pycolmap.Reconstruction, Path]:
    """``focal_px``: what the database says; the truth is 1000."""
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs = options.num_cameras_per_rig = 1
    options.num_frames_per_rig = 8
    options.num_points3D = 150
    options.camera_model_id = pycolmap.CameraModelId.PINHOLE
    options.camera_params = [1000, 1000, 512, 384]
    options.camera_width, options.camera_height = 1024, 768
    with pycolmap.Database.open(folder / "made.db") as database:
        truth = pycolmap.synthesize_dataset(options, database)
        names = {image.image_id: image.name for image in database.read_all_images()}
        keypoints = {
            name: database.read_keypoints(i)[:, :2].astype(np.float32) for i, name in names.items()
        }
        ids, found = database.read_all_matches()
        matches: list[tuple[ImagePair, Any]] = [
            (tuple(names[i] for i in pycolmap.pair_id_to_image_pair(pair)), rows)
            for pair, rows in zip(ids, found, strict=True)
        ]
    sizes = dict.fromkeys(keypoints, (1024, 768))
    camera = colmap.make_camera("PINHOLE", [focal_px, focal_px, 512, 384], (1024, 768))
    assigned = colmap.assign_cameras(
        sizes, given=lambda name: camera, guess=lambda name: camera, group=lambda name: name
    )
    path = folder / "database.db"
    colmap.write_database(
        path, assigned, keypoints.__getitem__, ((*each, None) for each in matches)
    )
    verify_database(path, max_error_px=2.0)
    return truth, path


def mapper(**options: Any) -> colmap.MapperOptions:
    return colmap.MapperOptions(seed=0, threads=1, options=options)


def settings(**changes: Any) -> dict[str, Any]:
    common = {"mapper": mapper(extract_colors=False), "constant_cameras": {1}, "min_model_size": 3}
    return {**common, **changes}


def centers(model: pycolmap.Reconstruction) -> dict[str, Any]:
    return {
        model.images[i].name: model.images[i].projection_center() for i in model.reg_image_ids()
    }


def test_a_database_holds_what_was_written(exact: tuple[pycolmap.Reconstruction, Path]) -> None:
    truth, path = exact
    keypoints = colmap.database_keypoints(path)
    assert sorted(keypoints) == sorted(centers(truth))
    verified = colmap.verified_matches(path)
    assert len(verified) > 10
    for (first, second), rows in verified.items():
        assert first < second
        assert rows.dtype == np.uint32
        assert rows.max(axis=0)[0] < len(keypoints[first])
        assert rows.max(axis=0)[1] < len(keypoints[second])


@pytest.mark.parametrize("method", ["incremental", "hierarchical", "global"])
def test_mapping_recovers_the_scene(
    exact: tuple[pycolmap.Reconstruction, Path], tmp_path: Path, method: str
) -> None:
    truth, path = exact
    options = {"extract_colors": False} if method == "incremental" else {}
    models = colmap.map_images(
        method,
        path,
        tmp_path,
        tmp_path / "scratch",
        **settings(mapper=mapper(**options)),
    )
    model = models[0]
    assert sorted(centers(model)) == sorted(centers(truth))
    assert model.num_points3D() > 100
    assert model.compute_mean_reprojection_error() < 0.5
    assert model.cameras[1].params.tolist() == [1000, 1000, 512, 384], "given, so kept"
    found = pycolmap.compare_reconstructions(model, truth, alignment_error="proj_center")
    assert max(error.proj_center_error for error in found["errors"]) < 0.05


def test_cameras_are_refined_unless_they_are_constant(tmp_path: Path) -> None:
    _, path = make_scene(tmp_path, focal_px=960)
    focal = {}
    for constant in (set(), {1}):
        common = settings(constant_cameras=constant)
        model = colmap.map_images("incremental", path, tmp_path, tmp_path / "s", **common)[0]
        focal[len(constant)] = model.cameras[1].params[0]
    assert focal[0] == pytest.approx(1000, rel=0.005)
    assert focal[1] == 960


def test_the_same_seed_gives_the_same_model(
    exact: tuple[pycolmap.Reconstruction, Path], tmp_path: Path
) -> None:
    first, second = (
        colmap.map_images("incremental", exact[1], tmp_path, tmp_path / str(i), **settings())[0]
        for i in range(2)
    )
    poses = colmap.model_poses(second)
    for name, pose in colmap.model_poses(first).items():
        np.testing.assert_array_equal(poses[name], pose)


def test_triangulation_keeps_every_digit(
    exact: tuple[pycolmap.Reconstruction, Path], tmp_path: Path
) -> None:
    truth, path = exact
    truth.write_text(tmp_path)
    (tmp_path / "points3D.txt").unlink()
    reference = colmap.read_model(tmp_path)
    model = colmap.triangulate(path, tmp_path, tmp_path / "s", reference, mapper())
    poses = {i.name: i.cam_from_world() for i in reference.images.values()}
    assert len(centers(model)) == 8
    for image in model.images.values():
        found = image.cam_from_world()
        assert found.rotation.quat.tolist() == poses[image.name].rotation.quat.tolist()
        assert found.translation.tolist() == poses[image.name].translation.tolist()
    assert model.num_points3D() > 100
    assert model.compute_mean_reprojection_error() < 0.5
    colmap.write_model(model, tmp_path / "model")
    for image in colmap.read_model(tmp_path / "model").images.values():
        found = image.cam_from_world()
        # COLMAP normalizes quaternions again when it reads them.
        expected = poses[image.name].rotation.quat
        np.testing.assert_array_max_ulp(found.rotation.quat, expected, maxulp=2)
        assert found.translation.tolist() == poses[image.name].translation.tolist()


def test_triangulation_of_other_images(
    exact: tuple[pycolmap.Reconstruction, Path], tmp_path: Path
) -> None:
    with pytest.raises(EstimationError, match="no image of the data set has a pose"):
        colmap.triangulate(
            exact[1],
            tmp_path,
            tmp_path / "s",
            pycolmap.Reconstruction(),
            mapper(),
        )


def test_global_mapping_refines_all_cameras_or_none(
    exact: tuple[pycolmap.Reconstruction, Path], tmp_path: Path
) -> None:
    path = tmp_path / "two.db"
    camera = colmap.make_camera("PINHOLE", [9, 9, 5, 5], (10, 10))
    assigned = colmap.assign_cameras(
        {"a": (10, 10), "b": (10, 10)},
        given=lambda name: camera if name == "a" else None,
        guess=lambda name: camera,
        group=lambda name: name,
    )
    colmap.write_database(path, assigned, lambda name: np.zeros((0, 2), np.float32), [])
    with pytest.raises(UsageError, match="cannot keep some cameras fixed"):
        colmap.map_images("global", path, tmp_path, tmp_path / "s", **settings(mapper=mapper()))


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"no_such": 1}, "IncrementalPipelineOptions has no option 'no_such'"),
        ({"mapper": {"no_such": 1}}, "IncrementalMapperOptions has no option 'no_such'"),
        ({"mapper": 3}, "mapper does not take 3"),
        ({"mapper": {"init_max_error": "two"}}, "init_max_error does not take 'two'"),
        ({"min_num_matches": 1.5}, "min_num_matches does not take 1.5"),
        ({"summary": 3}, "summary does not take 3"),
        ({"multiple_models": {"x": 1}}, "has no option 'x'"),
        ({"num_threads": 2**31 - 1}, "num_threads is 2147483647; set map.threads, or 64"),
    ],
)
def test_options_that_colmap_refuses(options: dict[str, Any], part: str) -> None:
    target = colmap.incremental_options(set(), 3, 0, 1)
    with pytest.raises(UsageError, match="options: ") as caught:
        colmap.merge_options(target, options)
    assert part in str(caught.value)


def test_options_are_merged_by_name() -> None:
    target = colmap.incremental_options({7}, 3, seed=5, threads=2)
    colmap.merge_options(target, {"mapper": {"init_max_error": 2.5}, "min_num_matches": 20})
    assert (target.mapper.init_max_error, target.min_num_matches) == (2.5, 20)
    assert (target.random_seed, target.num_threads, target.constant_cameras) == (5, 2, {7})


def test_no_features_and_no_matches_pass(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    camera = colmap.make_camera("PINHOLE", [9, 9, 5, 5], (10, 10))
    assigned = colmap.assign_cameras(
        {"a": (10, 10), "b": (10, 10)},
        given=lambda name: None,
        guess=lambda name: camera,
        group=lambda name: "",
    )
    nothing = np.zeros((0, 2), np.uint32)
    empty = np.zeros((0, 2), np.float32)
    colmap.write_database(path, assigned, lambda name: empty, [(("a", "b"), nothing, None)])
    verify_database(path)
    assert colmap.verified_matches(path) == {}
    assert {name: len(k) for name, k in colmap.database_keypoints(path).items()} == {"a": 0, "b": 0}


def test_a_damaged_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bad.db").write_bytes(b"not a database" * 400)
    with pytest.raises(OSError, match=r"bad\.db: COLMAP cannot read or write"):
        colmap.verified_matches(tmp_path / "bad.db")


@pytest.mark.parametrize(
    "save",
    [
        "from PIL import Image; Image.new('RGB', (64, 64)).save(path)",
        "import cv2, numpy; cv2.imwrite(path, numpy.zeros((64, 64, 3), numpy.uint8))",
    ],
)
def test_a_png_can_be_written_after_colmap_was_loaded_first(tmp_path: Path, save: str) -> None:
    code = f"import reconstruct.colmap; path = {str(tmp_path / 'a.png')!r}; {save}"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_models_that_cannot_be_read(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no COLMAP model here"):
        colmap.read_model(tmp_path)
    for file in (finished / "sparse").iterdir():
        content = file.read_bytes()
        cut = len(content) // 2 if file.stem == "images" else len(content)
        (tmp_path / file.name).write_bytes(content[:cut])
    with pytest.raises(UsageError, match="not a readable COLMAP model"):
        colmap.read_model(tmp_path)


def _text_model(folder: Path, camera: str, pose: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "cameras.txt").write_text(f"1 {camera}\n")
    (folder / "images.txt").write_text(f"1 {pose} 1 a b.jpg\n\n")
    return folder


@pytest.mark.parametrize(
    ("camera", "pose", "reason"),
    [
        ("SIMPLE_PINHOLE 10 10 -5 5 5", "1 0 0 0 0 0 0", "camera 1: its focal length is not above"),
        ("PINHOLE 10 10 5 0 5 5", "1 0 0 0 0 0 0", "camera 1: its focal length is not above 0"),
        ("SIMPLE_PINHOLE 10 10 nan 5 5", "1 0 0 0 0 0 0", "not a readable COLMAP model"),
        ("SIMPLE_PINHOLE 10 10 5 inf 5", "1 0 0 0 0 0 0", "one that is not a finite number"),
        ("SIMPLE_PINHOLE 0 10 5 5 5", "1 0 0 0 0 0 0", "0 x 10 pixels is no size"),
        ("SIMPLE_PINHOLE 10 10 1e-308 5 5", "1 0 0 0 0 0 0", "camera 1: no lens has these"),
        ("PINHOLE 10 10 5 1e7 5 5", "1 0 0 0 0 0 0", "camera 1: no lens has these"),
        ("SIMPLE_PINHOLE 10 10 5 5 -1e300", "1 0 0 0 0 0 0", "camera 1: no lens has these"),
        ("SIMPLE_RADIAL 10 10 5 5 5 1e10", "1 0 0 0 0 0 0", "camera 1: no lens has these"),
        (
            "SIMPLE_PINHOLE 10 10 5 5 5",
            "0 0 0 0 0 0 0",
            r"a b\.jpg: its quaternion has length 0",
        ),
        (
            "SIMPLE_PINHOLE 10 10 5 5 5",
            "2 0 0 0 0 0 0",
            r"a b\.jpg: its quaternion has length 2",
        ),
        ("SIMPLE_PINHOLE 10 10 5 5 5", "1 0 0 0 nan 0 0", "one that is not a finite number"),
    ],
)
def test_impossible_cameras_and_poses_of_a_model_are_named(
    tmp_path: Path, camera: str, pose: str, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        colmap.read_model(_text_model(tmp_path, camera, pose))


def test_a_rounded_quaternion_is_brought_to_unit_length(tmp_path: Path) -> None:
    folder = _text_model(tmp_path, "SIMPLE_PINHOLE 10 10 5 5 5", "0.71 0 0 0.71 1 2 3")
    (pose,) = colmap.model_poses(colmap.read_model(folder)).values()
    np.testing.assert_allclose(pose, [[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3]], atol=1e-12)


@pytest.mark.parametrize(
    ("file", "offset", "what"),
    [
        ("cameras.bin", 0, "claims 1000000000 records"),
        ("images.bin", 0, "claims 1000000000 records"),
        ("points3D.bin", 0, "claims 1000000000 records"),
        ("points3D.bin", 8 + 43, "ends too early"),  # the length of the first track
        ("points3D.bin", 8, "observes points that are not in"),  # the first point's id
        ("frames.bin", 0, "claims 1000000000 records"),
    ],
)
def test_counts_beyond_the_file_are_refused_before_colmap_believes_them(
    finished: Path, tmp_path: Path, file: str, offset: int, what: str
) -> None:
    shutil.copytree(finished / "sparse", tmp_path / "model")
    content = bytearray((tmp_path / "model" / file).read_bytes())
    content[offset : offset + 8] = (10**9).to_bytes(8, "little")
    (tmp_path / "model" / file).write_bytes(content)
    with pytest.raises(UsageError, match=what):
        colmap.read_model(tmp_path / "model")


@pytest.mark.parametrize("extension", ["txt", "bin"])
def test_cameras_and_images_alone_are_a_model(
    finished: Path, tmp_path: Path, extension: str
) -> None:
    model = _without_points(colmap.read_model(finished / "sparse"))
    for image in model.images.values():
        image.name = f"with a space {image.image_id}.jpg"
    (model.write_text if extension == "txt" else model.write_binary)(tmp_path)
    for file in tmp_path.iterdir():
        if file.stem not in ("cameras", "images"):
            file.unlink()
    found = colmap.model_poses(colmap.read_model(tmp_path))
    expected = colmap.model_poses(model)
    assert found.keys() == expected.keys()
    for name, pose in expected.items():
        np.testing.assert_allclose(found[name], pose, atol=1e-12)


def _without_points(model: pycolmap.Reconstruction) -> pycolmap.Reconstruction:
    bare = pycolmap.Reconstruction()
    for camera in model.cameras.values():
        bare.add_camera_with_trivial_rig(camera)
    for i in model.reg_image_ids():
        image = model.images[i]
        fresh = pycolmap.Image(name=image.name, camera_id=image.camera_id, image_id=i)
        bare.add_image_with_trivial_frame(fresh, image.cam_from_world())
    return bare


@pytest.mark.parametrize(
    ("write", "at_most"),
    [(colmap.write_model, 2), (colmap.write_text_model, 2.5), (colmap.write_points, 2.5)],
)
def test_a_full_disk_is_noticed_before_a_model_is_cut_off(
    write: Any, at_most: float, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def full(folder: Path, size: int) -> None:
        nonlocal asked
        asked = size
        raise OSError(28, "No space left on device")

    model = colmap.read_model(finished / "sparse")
    write(model, tmp_path / "whole")
    written = sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file())
    monkeypatch.setattr("reconstruct.colmap.models.reserve", full)
    with pytest.raises(OSError, match="No space"):
        write(model, tmp_path / "model")
    assert written <= asked <= at_most * written


def test_camera_models_by_name() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown camera model 'PINHLE' .*'PINHOLE'"):
        colmap.make_camera("PINHLE", [1, 1, 1, 1], (2, 2))
    with pytest.raises(UsageError, match="the 3 given: fx, fy, cx, cy"):
        colmap.make_camera("PINHOLE", [1, 1, 1], (2, 2))


def test_other_observations_of_the_same_points(exact: tuple[pycolmap.Reconstruction, Path]) -> None:
    model, _ = exact
    tracks = colmap.Tracks(model)
    keypoints = {name: tracks.keypoints(name) for name in tracks.names}
    points = {name: tracks.points(name) for name in tracks.names}
    same = colmap.Tracks(colmap.with_observations(model, keypoints, points))
    assert same.names == tracks.names
    for name in tracks.names:
        np.testing.assert_array_equal(same.keypoints(name), keypoints[name])
        np.testing.assert_array_equal(same.points(name), points[name])
        np.testing.assert_array_equal(same.projected(name), tracks.projected(name))
        seen = points[name] >= 0
        np.testing.assert_allclose(same.projected(name)[seen], keypoints[name][seen], atol=1e-3)
    ids = np.array(sorted(model.points3D))
    np.testing.assert_array_equal(same.positions(ids), tracks.positions(ids))


def test_an_image_without_points_loses_its_pose(
    exact: tuple[pycolmap.Reconstruction, Path],
) -> None:
    tracks = colmap.Tracks(exact[0])
    keypoints = {name: tracks.keypoints(name) for name in tracks.names}
    points = {name: tracks.points(name) for name in tracks.names}
    model = colmap.with_observations(exact[0], keypoints, points)
    assert colmap.drop_unfounded_images(model) == []
    lost = tracks.names[1]
    points[lost] = np.where(np.cumsum(points[lost] >= 0) < 10, points[lost], -1)  # 9 are left
    model = colmap.with_observations(exact[0], keypoints, points)
    assert colmap.drop_unfounded_images(model) == [lost]
    assert sorted(colmap.model_poses(model)) == sorted(set(tracks.names) - {lost})
