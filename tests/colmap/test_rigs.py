"""Rigs by COLMAP's configuration: which photos are a frame, and the scale that a rig gives."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest

from reconstruct import colmap
from reconstruct.errors import EstimationError, UsageError
from reconstruct.evaluation.poses import similarity
from reconstruct.geometry import projection_center

POSE = {"cam_from_rig_rotation": [1, 0, 0, 0], "cam_from_rig_translation": [-0.5, 0, 0]}


def write(path: Path, *cameras: dict[str, Any]) -> Path:
    path.write_text(json.dumps([{"cameras": list(cameras)}]))
    return path


def stereo(path: Path, **more: Any) -> Path:
    left = {"image_prefix": "left/", "ref_sensor": True}
    return write(path, left, {"image_prefix": "right/"} | more)


def test_photos_with_one_name_after_the_prefix_are_a_frame(tmp_path: Path) -> None:
    rigs = colmap.Rigs(stereo(tmp_path / "rigs.json", **POSE))
    assert rigs.calibrated
    assert rigs.sensor("left/a/1.jpg") == "left/"
    assert rigs.sensor("above.jpg") is None
    assert rigs.frame("left/a/1.jpg") == rigs.frame("right/a/1.jpg") != rigs.frame("right/1.jpg")
    assert rigs.frame("above.jpg") == "above.jpg"
    assert rigs.camera("left/1.jpg", (9, 9)) is None
    rigs.check(["left/1.jpg", "right/1.jpg", "above.jpg"])
    assert not colmap.Rigs(stereo(tmp_path / "rigs.json")).calibrated


def test_intrinsics_of_the_configuration(tmp_path: Path) -> None:
    more = {"camera_model_name": "PINHOLE", "camera_params": [90, 91, 50, 40]}
    rigs = colmap.Rigs(stereo(tmp_path / "rigs.json", **more))
    camera = rigs.camera("right/1.jpg", (100, 80))
    assert camera is not None
    assert (camera.width, camera.height, list(camera.params)) == (100, 80, [90, 91, 50, 40])


@pytest.mark.parametrize(
    ("cameras", "message"),
    [
        ([{"image_prefix": "a/"}], "reference sensor"),
        ([{"image_prefix": p, "ref_sensor": True} for p in ("a/", "b/")], "reference sensor"),
        ([{"image_prefix": "a", "ref_sensor": True}, {"image_prefix": "ab"}], "begin with 'a' too"),
        ([{"prefix": "a/"}], "not a rig configuration"),
        (
            [
                {"image_prefix": "a/", "ref_sensor": True},
                {"image_prefix": "b/", **POSE, "cam_from_rig_rotation": [0, 0, 0, 0]},
            ],
            "'b/': its pose is none: the quaternion has length 0 and not 1",
        ),
    ],
)
def test_a_wrong_configuration_is_named(
    tmp_path: Path, cameras: list[dict[str, Any]], message: str
) -> None:
    path = write(tmp_path / "rigs.json", *cameras)
    with pytest.raises(UsageError, match=message) as caught:
        colmap.Rigs(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", [None, "", "{", '{"cameras": 3}', "[1]", "[" * 10**5])
def test_an_unreadable_configuration_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "rigs.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=r"rigs\.json: not a rig configuration"):
        colmap.Rigs(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "rigs.json")
    with pytest.raises(UsageError, match="not a regular file"):
        colmap.Rigs(tmp_path / "rigs.json")


def test_photos_that_do_not_fit_the_configuration(tmp_path: Path) -> None:
    rigs = colmap.Rigs(stereo(tmp_path / "rigs.json"))
    with pytest.raises(UsageError, match="no photo's name begins with 'right/'"):
        rigs.check(["left/1.jpg"])
    with pytest.raises(UsageError, match="no two photos of a rig have the same name"):
        rigs.check(["left/1.jpg", "right/2.jpg"])


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, pycolmap.Reconstruction]:
    """A database of exact matches, without rigs, and the true model of a stereo pair."""
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 2, 6
    options.num_points3D = 150
    options.camera_has_prior_focal_length = True
    pycolmap.set_random_seed(0)
    path = tmp_path / "database.db"
    with pycolmap.Database.open(tmp_path / "synthetic.db") as source:
        truth = pycolmap.synthesize_dataset(options, source)
        names = {image.image_id: image.name for image in source.read_all_images()}
        keypoints = {name: source.read_keypoints(i)[:, :2] for i, name in names.items()}
        found = zip(*source.read_two_view_geometries(), strict=True)
        matches = {
            tuple(names[i] for i in pycolmap.pair_id_to_image_pair(pair)): g.inlier_matches
            for pair, g in found
        }
    sizes = dict.fromkeys(keypoints, (truth.cameras[1].width, truth.cameras[1].height))
    known = {image.name: truth.cameras[image.camera_id] for image in truth.images.values()}
    cameras = colmap.assign_cameras(sizes, known.get, lambda name: known[name], lambda name: "")
    options_pair = colmap.TwoViewOptions()
    pairs = []
    for (a, b), rows in sorted(matches.items()):
        geometry = colmap.estimate_two_view_geometry(
            known[a], keypoints[a], known[b], keypoints[b], rows, options_pair, seed=0
        )
        pairs.append(((a, b), rows, geometry))
    colmap.write_database(path, cameras, lambda name: keypoints[name].astype(np.float32), pairs)
    return path, truth


def configuration(path: Path, truth: pycolmap.Reconstruction, calibrated: bool) -> colmap.Rigs:
    rig = next(iter(truth.rigs.values()))
    ((sensor, pose),) = rig.non_ref_sensors.items()
    reference = rig.ref_sensor_id.id
    prefixes = {i: f"camera{i:06d}_" for i in (reference, sensor.id)}
    other: dict[str, Any] = {"image_prefix": prefixes[sensor.id]}
    if calibrated:
        x, y, z, w = pose.rotation.quat
        other["cam_from_rig_rotation"] = [w, x, y, z]
        other["cam_from_rig_translation"] = pose.translation.tolist()
    left = {"image_prefix": prefixes[reference], "ref_sensor": True}
    return colmap.Rigs(write(path, left, other))


def scale(model: colmap.Reconstruction, truth: colmap.Reconstruction) -> float:
    """How many units of the truth one of the model is."""
    found, true = colmap.model_poses(model), colmap.model_poses(truth)
    centers = [np.array([projection_center(p[n]) for n in found]) for p in (found, true)]
    return similarity(*centers)[0]


def mapped(
    database: Path, scratch: Path, method: str = "incremental", **more: Any
) -> colmap.Reconstruction:
    mapper = colmap.MapperOptions(seed=0, threads=1)
    settings: dict[str, Any] = {"constant_cameras": {1, 2}, "min_model_size": 3, **more}
    return colmap.map_images(method, database, scratch, scratch, mapper, **settings)[0]


def test_a_known_baseline_makes_the_model_metric(
    scene: tuple[Path, colmap.Reconstruction], tmp_path: Path
) -> None:
    database, truth = scene
    rigs = configuration(tmp_path / "rigs.json", truth, calibrated=True)
    free = mapped(database, tmp_path / "free")
    assert not colmap.has_rigs(free)
    assert abs(scale(free, truth) - 1) > 0.01, "else the test says nothing"
    rigs.apply(database)
    assert len(colmap.rig_ids(database)) == 1
    model = mapped(database, tmp_path / "rigs", constant_rigs=True)
    assert colmap.has_rigs(model)
    assert scale(model, truth) == pytest.approx(1, abs=1e-4)
    colmap.adjust_robustly(model, 0.5, {1, 2}, threads=1, constant_rigs=True)
    assert scale(model, truth) == pytest.approx(1, abs=1e-4), "no gauge may hold it elsewhere"
    names = colmap.model_poses(model)
    tracks = colmap.Tracks(model)
    again = colmap.with_observations(
        model,
        {name: tracks.keypoints(name) for name in names},
        {name: tracks.points(name) for name in names},
    )
    assert colmap.has_rigs(again)
    assert again.num_frames() == 6
    assert colmap.model_summary(again)["observations"] == model.compute_num_observations()
    for name, pose in colmap.model_poses(again).items():
        np.testing.assert_allclose(pose, names[name], atol=1e-12)


@pytest.mark.parametrize("method", ["global", "hierarchical"])
def test_other_mappers_end_metric_too(
    scene: tuple[Path, colmap.Reconstruction], tmp_path: Path, method: str
) -> None:
    database, truth = scene
    configuration(tmp_path / "rigs.json", truth, calibrated=True).apply(database)
    model = mapped(database, tmp_path / method, method, constant_rigs=True)
    assert model.num_reg_images() == 12
    colmap.adjust_robustly(model, 0.5, {1, 2}, threads=1, constant_rigs=True)
    assert scale(model, truth) == pytest.approx(1, abs=1e-4)


def test_unknown_poses_in_the_rig_are_estimated(
    scene: tuple[Path, colmap.Reconstruction], tmp_path: Path
) -> None:
    database, truth = scene
    rigs = configuration(tmp_path / "rigs.json", truth, calibrated=False)
    free = mapped(database, tmp_path / "free")
    rigs.apply(database, free)
    model = mapped(database, tmp_path / "rigs")
    assert colmap.has_rigs(model)
    assert model.num_reg_images() == 12
    ((_, found),) = next(
        r for r in model.rigs.values() if r.num_sensors() == 2
    ).non_ref_sensors.items()
    ((_, true),) = next(iter(truth.rigs.values())).non_ref_sensors.items()
    np.testing.assert_allclose(found.translation * scale(model, truth), true.translation, atol=1e-3)


def test_a_model_that_does_not_tell_the_pose_of_a_camera(
    scene: tuple[Path, colmap.Reconstruction], tmp_path: Path
) -> None:
    database, truth = scene
    rigs = configuration(tmp_path / "rigs.json", truth, calibrated=False)
    with pytest.raises(EstimationError, match="cam_from_rig_rotation"):
        rigs.apply(database, pycolmap.Reconstruction())
