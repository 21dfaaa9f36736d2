"""A stereo pair in the square: its baseline makes the model metric, without other input."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Command
from PIL import Image

import reconstruct
from reconstruct import colmap
from reconstruct.datasets.rendering import illuminate, render
from reconstruct.datasets.synthetic import (
    DAY,
    build_scene,
    orbit_views,
    write_model,
    write_photo,
)
from reconstruct.errors import UsageError
from reconstruct.evaluation.poses import similarity
from reconstruct.geometry import projection_center
from reconstruct.storage.poses import read_poses

BASELINE_M = 0.8
PAIR = "pair={method: sequential, overlap: 3}"


@pytest.fixture(scope="module")
def stereo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos left/NAME and right/NAME, and the true model of them. Not to be changed."""
    folder = tmp_path_factory.mktemp("stereo")
    left = orbit_views(5, (320, 240), arc_deg=40.0)
    shift = np.array([[0.0, 0, 0, -BASELINE_M], [0, 0, 0, 0], [0, 0, 0, 0]])
    right = [replace(view, cam_from_world=view.cam_from_world + shift) for view in left]
    scene = illuminate(build_scene(0), DAY)
    views = []
    for side, shots in (("left", left), ("right", right)):
        (folder / "photos" / side).mkdir(parents=True)
        for number, view in enumerate(shots):
            named = replace(view, name=f"{side}/{number}")
            picture = render(scene, named, np.random.default_rng(number)).image
            write_photo(folder / "photos" / f"{named.name}.jpg", picture)
            views.append(named)
    write_model(folder / "reference", views)
    return folder


def write_rigs(path: Path, calibrated: bool) -> Path:
    right = {"image_prefix": "right/"}
    if calibrated:
        right |= {"cam_from_rig_rotation": [1, 0, 0, 0]}
        right |= {"cam_from_rig_translation": [-BASELINE_M, 0, 0]}
    cameras = [{"image_prefix": "left/", "ref_sensor": True}, right]
    path.write_text(json.dumps([{"cameras": cameras}]))
    return path


def run(
    command: Command, chain: Path, stereo: Path, output: Path, *settings: str
) -> colmap.Reconstruction:
    arguments = ["run", chain, "--images", stereo / "photos", "--output", output, "-q"]
    cameras = f"dataset.cameras={json.dumps(str(stereo / 'reference'))}"
    for setting in (cameras, PAIR, "map.robust_loss_px=0.5", *settings):
        arguments += ["--set", setting]
    assert command(*arguments).status == 0
    return colmap.read_model(output / "sparse")


def scale(model: colmap.Reconstruction, stereo: Path) -> float:
    found = colmap.model_poses(model)
    true = colmap.model_poses(colmap.read_model(stereo / "reference"))
    centers = [np.array([projection_center(p[n]) for n in found]) for p in (found, true)]
    return similarity(*centers)[0]


def test_a_calibrated_pair_makes_the_model_metric(
    command: Command, chain: Path, stereo: Path, tmp_path: Path
) -> None:
    rigs = f"dataset.rigs={write_rigs(tmp_path / 'rigs.json', calibrated=True)}"
    model = run(command, chain, stereo, tmp_path / "out", rigs)
    assert model.num_reg_images() == 10
    assert colmap.has_rigs(model)
    assert model.num_cameras() == 2, "one for each sensor, though they are alike"
    assert scale(model, stereo) == pytest.approx(1, abs=0.005)
    pairs = (tmp_path / "out" / "pairs.txt").read_text().split("\n")
    assert "left/0.jpg right/0.jpg" in pairs, "taken at once"
    assert "left/0.jpg right/3.jpg" in pairs, "taken one after the other"
    assert "left/0.jpg left/4.jpg" not in pairs
    assert len(colmap.rig_ids(tmp_path / "out" / "database.db")) == 1
    changed = write_rigs(tmp_path / "rigs.json", calibrated=False)
    again = run(command, chain, stereo, tmp_path / "out", f"dataset.rigs={changed}")
    assert abs(scale(again, stereo) - 1) > 0.02, "no longer known: its content counts"


def test_the_pose_of_a_camera_in_its_rig_is_estimated(
    command: Command, chain: Path, stereo: Path, tmp_path: Path
) -> None:
    rigs = f"dataset.rigs={write_rigs(tmp_path / 'rigs.json', calibrated=False)}"
    model = run(command, chain, stereo, tmp_path / "out", rigs)
    assert model.num_reg_images() == 10
    ((pose,),) = (
        tuple(rig.non_ref_sensors.values()) for rig in model.rigs.values() if rig.num_sensors() == 2
    )
    baseline = pose.translation * scale(model, stereo)
    np.testing.assert_allclose(baseline, [-BASELINE_M, 0, 0], atol=0.02)


def test_a_rig_that_is_not_quite_as_given_is_refined(
    command: Command, chain: Path, stereo: Path, tmp_path: Path
) -> None:
    """The right camera looks 0.3 degrees beside where the configuration says: 1.4 pixels, by which
    points seem nearer or farther. Its distance still says how large the model is."""
    path = write_rigs(tmp_path / "rigs.json", calibrated=True)
    half = np.radians(0.3) / 2
    content = json.loads(path.read_text())
    content[0]["cameras"][1]["cam_from_rig_rotation"] = [np.cos(half), 0, np.sin(half), 0]
    path.write_text(json.dumps(content))
    given = run(command, chain, stereo, tmp_path / "given", f"dataset.rigs={path}")
    assert abs(scale(given, stereo) - 1) > 0.02
    settings = (f"dataset.rigs={path}", "map.refine_rigs=true")
    refined = run(command, chain, stereo, tmp_path / "refined", *settings)
    assert scale(refined, stereo) == pytest.approx(1, abs=0.01)
    ((pose,),) = (
        tuple(rig.non_ref_sensors.values())
        for rig in refined.rigs.values()
        if rig.num_sensors() == 2
    )
    assert np.linalg.norm(pose.translation) == pytest.approx(BASELINE_M, abs=1e-9)
    assert np.degrees(pose.rotation.angle()) < 0.1, "as the photos were taken"


def test_triangulation_keeps_the_poses_of_rigs_too(
    command: Command, chain: Path, stereo: Path, tmp_path: Path
) -> None:
    rigs = f"dataset.rigs={write_rigs(tmp_path / 'rigs.json', calibrated=True)}"
    reference = stereo / "reference"
    settings = f"map={{method: triangulate, reference: {reference}}}"
    model = run(command, chain, stereo, tmp_path / "out", rigs, settings)
    true = colmap.model_poses(colmap.read_model(reference))
    for name, pose in colmap.model_poses(model).items():
        np.testing.assert_allclose(pose, true[name], atol=1e-9)
    assert model.num_points3D() > 50


def test_gps_does_not_change_the_size_that_a_rig_gives(
    command: Command, chain: Path, stereo: Path, tmp_path: Path
) -> None:
    poses = colmap.model_poses(colmap.read_model(stereo / "reference"))
    table = tmp_path / "gps.csv"
    rows = ["name,latitude,longitude,altitude"]
    for name, pose in poses.items():  # too large by a tenth
        place = colmap.geodetic(1.1 * projection_center(pose), (47.0, 8.0, 400.0))[0]
        rows.append(",".join([name, *map(repr, place.tolist())]))
    table.write_text("\n".join(rows))
    rigs = f"dataset.rigs={write_rigs(tmp_path / 'rigs.json', calibrated=True)}"
    gps = f"dataset.gps.positions={table}"
    model = run(command, chain, stereo, tmp_path / "out", rigs, gps)
    assert json.loads((tmp_path / "out" / "gps.json").read_text())["models"][0]["aligned"]
    assert scale(model, stereo) == pytest.approx(1, abs=0.01)


def test_the_global_mapper_needs_the_last_adjustment(
    command: Command, chain: Path, stereo: Path, tmp_path: Path
) -> None:
    rigs = write_rigs(tmp_path / "rigs.json", calibrated=True)
    arguments = ["run", chain, "--images", stereo / "photos", "--output", tmp_path / "out"]
    outcome = command(*arguments, "--set", f"dataset.rigs={rigs}", "--set", "map.method=global")
    assert outcome.status == 2
    assert "map.robust_loss_px: required" in outcome.err


def test_without_known_distances_there_is_nothing_to_keep(
    command: Command, chain: Path, stereo: Path, tmp_path: Path
) -> None:
    rigs = write_rigs(tmp_path / "rigs.json", calibrated=False)
    arguments = ["run", chain, "--images", stereo / "photos", "--output", tmp_path / "out"]
    arguments += ["--set", "map.refine_rigs=true"]
    outcome = command(*arguments, "--set", f"dataset.rigs={rigs}")
    assert outcome.status == 2
    assert "set `robust_loss_px`" in outcome.err
    arguments += ["--set", "map.robust_loss_px=0.5"]
    outcome = command(*arguments, "--set", f"dataset.rigs={rigs}")
    assert outcome.status == 2
    assert "map.refine_rigs: needs dataset.rigs with the poses of all cameras" in outcome.err


def test_a_configuration_of_other_photos_is_refused(
    command: Command, chain: Path, stereo: Path, tmp_path: Path
) -> None:
    rigs = write_rigs(tmp_path / "rigs.json", calibrated=False)
    arguments = ["run", chain, "--images", stereo / "photos", "--output", tmp_path / "out"]
    outcome = command(*arguments, "--set", f"dataset.rigs={tmp_path / 'none.json'}")
    assert outcome.status == 2
    assert "not a rig configuration" in outcome.err
    rigs.write_text(rigs.read_text().replace("right/", "middle/"))
    outcome = command(*arguments, "--set", f"dataset.rigs={rigs}")
    assert outcome.status == 2
    assert "no photo's name begins with 'middle/'" in outcome.err


def test_queries_that_were_taken_at_once_are_localized_together(
    command: Command, chain: Path, stereo: Path, tmp_path: Path
) -> None:
    """The right photo is black but for a corner, where little is found."""
    photos = tmp_path / "photos"
    shutil.copytree(stereo / "photos", photos)
    names = ["left/new.jpg", "right/new.jpg"]
    for side in ("left", "right"):
        (photos / side / "4.jpg").rename(photos / side / "new.jpg")
    dark = np.asarray(Image.open(photos / names[1])).copy()
    dark[60:], dark[:, 80:] = 0, 0
    Image.fromarray(dark).save(photos / names[1], quality=95)
    camera = colmap.intrinsics(
        colmap.model_cameras(colmap.read_model(stereo / "reference"))["left/4.jpg"]
    )
    values = [*camera.size, *camera.params]
    line = " ".join(["PINHOLE", *map(str, values)])
    (tmp_path / "queries.txt").write_text("".join(f"{name} {line}\n" for name in names))
    arguments = ["run", chain, "--images", photos, "--output", tmp_path / "out", "-q"]
    for setting in (
        f"dataset.cameras={stereo / 'reference'}",
        f"dataset.queries={tmp_path / 'queries.txt'}",
        f"map={{method: triangulate, reference: {stereo / 'reference'}}}",
        "localize.min_inliers=12",
    ):
        arguments += ["--set", setting]
    true = colmap.model_poses(colmap.read_model(stereo / "reference"))
    true = {name.replace("/4", "/new"): pose for name, pose in true.items()}

    def errors_m(*settings: str) -> dict[str, float]:
        assert command(*arguments, *settings).status in (0, 3)
        found = read_poses(tmp_path / "out" / "poses.txt")
        return {
            name: float(np.linalg.norm(projection_center(pose) - projection_center(true[name])))
            for name, pose in found.items()
        }

    assert "right/new.jpg" not in errors_m()
    rigs = write_rigs(tmp_path / "rigs.json", calibrated=True)
    together = errors_m("--set", f"localize.rigs={rigs}")
    assert set(together) == set(names)
    assert max(together.values()) < 0.05
    localizer = reconstruct.Localizer(tmp_path / "out", device="cpu")
    poses = [colmap.Rigs(rigs).cam_from_rig(name) for name in names]
    frame = localizer.frame([photos / name for name in names], [camera, camera], poses)
    expected = read_poses(tmp_path / "out" / "poses.txt")
    for name, found in zip(names, frame, strict=True):
        np.testing.assert_allclose(found.cam_from_world, expected[name], atol=1e-6)
    with pytest.raises(UsageError, match="2 photos, 1 cameras and 2 poses"):
        localizer.frame([photos / name for name in names], [camera], poses)
    write_rigs(rigs, calibrated=False)
    outcome = command(*arguments, "--set", f"localize.rigs={rigs}")
    assert outcome.status == 2
    assert "localize.rigs needs the poses of all cameras" in outcome.err
    write_rigs(rigs, calibrated=True)
    (tmp_path / "queries.txt").write_text("".join(f"{name}\n" for name in names))
    settings = ["--set", f"localize.rigs={rigs}", "--set", "dataset.cameras=null"]
    outcome = command(*arguments, *settings)
    assert outcome.status == 2
    assert "its intrinsics are not known, which localize.rigs needs" in outcome.err
