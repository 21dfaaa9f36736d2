"""Models that share photos, made into one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

import reconstruct
from reconstruct import colmap
from reconstruct.errors import EstimationError, UsageError
from reconstruct.evaluation.poses import pose_metrics
from reconstruct.geometry import projection_center
from reconstruct.similarity import agreeing_similarity
from reconstruct.stages.evaluate import aligned

SIZE = (640, 480)
NAMES = [f"{i}.jpg" for i in range(8)]


def scene(names: list[str], seed: int = 0, noise_px: float = 0.0) -> colmap.Reconstruction:
    """Photos along a street, with exact tracks of the points that two of them or more see.

    The same photo has the same keypoints, whichever others are with it.
    """
    rng = np.random.default_rng(3)
    points = rng.uniform([-2, -2, 4], [9, 2, 7], (400, 3))
    intrinsics = colmap.intrinsics(colmap.make_camera("PINHOLE", [500, 500, 320, 240], SIZE))
    images = []
    for name in names:
        number = NAMES.index(name)
        turn = Rotation.from_euler("y", 2.0 * number, degrees=True).as_matrix()
        center = np.array([0.9 * number, 0.1 * (number % 2), 0.05 * number])
        pose = np.column_stack([turn, -turn @ center])
        local = points @ turn.T + pose[:, 3]
        pixels = local[:, :2] / local[:, 2:] * 500 + [320, 240]
        seen = np.flatnonzero(((pixels > 0) & (pixels < SIZE)).all(1))
        keypoints = pixels[seen] + np.random.default_rng([seed, number]).normal(
            0, noise_px or 1e-9, (len(seen), 2)
        )
        images.append((name, intrinsics, pose, keypoints, seen))
    return colmap.build_model(images, points)


def elsewhere(model: colmap.Reconstruction) -> colmap.Reconstruction:
    """The same model in a world of another size and place."""
    turn = pycolmap.Rotation3d(Rotation.from_euler("xyz", [1, 2, 3]).as_quat())
    model.transform(pycolmap.Sim3d(0.3, turn, np.array([5.0, 6, 7])))
    return model


def write(model: colmap.Reconstruction, folder: Path) -> Path:
    colmap.write_model(model, folder)
    return folder


def tracks(model: colmap.Reconstruction) -> set[frozenset[tuple[str, int]]]:
    return {
        frozenset((model.images[e.image_id].name, e.point2D_idx) for e in point.track.elements)
        for point in model.points3D.values()
    }


def test_halves_that_share_photos_become_the_whole(tmp_path: Path) -> None:
    whole = scene(NAMES)
    first = write(scene(NAMES[:5]), tmp_path / "first")
    second = write(elsewhere(scene(NAMES[2:])), tmp_path / "second")
    found = reconstruct.join([first, second], tmp_path / "out")
    assert found.model is not None
    truth, poses = colmap.model_poses(whole), colmap.model_poses(found.model)
    assert pose_metrics(aligned(poses, truth), truth).position_max < 1e-5
    assert found.model.num_cameras() == 1, "the shared photos say that it is one"
    assert found.summary.figures["join"]["agreeing"] == NAMES[2:5]
    # What both halves see is one point: its track is that of the whole.
    assert tracks(found.model) == tracks(whole)
    assert (tmp_path / "out" / "summary.json").is_file()


def test_given_intrinsics_are_kept_and_estimated_ones_are_adjusted(tmp_path: Path) -> None:
    halves = [scene(NAMES[:5], noise_px=0.3), elsewhere(scene(NAMES[2:], noise_px=0.3))]
    folders = [write(half, tmp_path / str(i)) for i, half in enumerate(halves)]
    given = halves[0].cameras[1].params
    kept = reconstruct.join(folders, tmp_path / "kept").model
    assert kept is not None
    assert [camera.params.tolist() for camera in kept.cameras.values()] == [given.tolist()]
    refined = reconstruct.join(folders, tmp_path / "refined", refine_intrinsics=True).model
    assert refined is not None
    assert refined.cameras[1].params[0] != given[0]
    halves[1].cameras[1].params = given * [1.01, 1.01, 1, 1]
    folders[1] = write(halves[1], tmp_path / "other")
    estimated = reconstruct.join(folders, tmp_path / "estimated").model
    assert estimated is not None
    assert estimated.num_cameras() == 1
    fx = estimated.cameras[1].params[0]  # fy is free: all photos are level
    assert fx == pytest.approx(refined.cameras[1].params[0], abs=0.5)


def test_models_that_share_too_little_are_refused(tmp_path: Path) -> None:
    first = write(scene(NAMES[:5]), tmp_path / "first")
    second = write(scene(NAMES[3:]), tmp_path / "second")
    with pytest.raises(EstimationError, match=r"shares 2 photos .* 2 agree .* 3 are needed"):
        reconstruct.join([first, second], tmp_path / "out")
    assert not (tmp_path / "out" / "sparse").exists()
    joined = reconstruct.join([first, second], tmp_path / "out", min_photos=2)
    assert joined.summary.figures["join"]["registered_images"] == 8
    with pytest.raises(UsageError, match="two models or more"):
        reconstruct.join([first], tmp_path / "other")
    (tmp_path / "out" / "run.yaml").touch()
    with pytest.raises(UsageError, match="holds a run"):
        reconstruct.join([first, second], tmp_path / "out", min_photos=2)


def test_photos_that_do_not_agree_do_not_join_models(tmp_path: Path) -> None:
    bent = scene(NAMES[2:])
    for image_id in sorted(bent.reg_image_ids())[:2]:
        frame = bent.images[image_id].frame
        pose = frame.rig_from_world.matrix()
        pose[:, 3] += [0, 2, 0]  # metres, four away from the points
        frame.rig_from_world = pycolmap.Rigid3d(pose)
    first = write(scene(NAMES[:5]), tmp_path / "first")
    with pytest.raises(EstimationError, match=r"shares 3 photos .*agree"):
        reconstruct.join([first, write(bent, tmp_path / "bent")], tmp_path / "out")


def test_other_keypoints_of_a_shared_photo_are_kept_beside_the_own(tmp_path: Path) -> None:
    other = scene(NAMES[2:])
    shuffled = dict.fromkeys(NAMES[2:], 0)
    by_name = colmap.Tracks(other)
    keypoints, points = {}, {}
    for name in shuffled:
        order = np.random.default_rng(0).permutation(len(by_name.points(name)))
        keypoints[name], points[name] = by_name.keypoints(name)[order], by_name.points(name)[order]
    other = colmap.with_observations(other, keypoints, points)
    first = scene(NAMES[:5])
    found = colmap.find_overlap(other, first)
    assert found.similarity is not None
    merged = colmap.merge_models(other, first, found.similarity)
    image = merged.find_image_with_name(NAMES[2])
    assert image is not None
    own = len(colmap.Tracks(first).keypoints(NAMES[2]))
    assert image.num_points2D() > 1.5 * own
    assert merged.num_points3D() > first.num_points3D()


def test_the_similarity_of_the_many() -> None:
    poses = np.array(list(colmap.model_poses(scene(NAMES)).values()))
    moved = np.array(list(colmap.model_poses(elsewhere(scene(NAMES))).values()))
    moved[6, :, 3] += 1  # wrong
    moved[7, :, :3] = np.diag([1, -1, -1]) @ moved[7, :, :3]  # upside down
    found = agreeing_similarity(moved, poses, np.full(8, 5.0))
    assert found is not None
    assert found.agreeing.tolist() == [True] * 6 + [False] * 2
    assert found.scale == pytest.approx(1 / 0.3)
    center = found.scale * found.rotation @ projection_center(moved[0]) + found.translation
    np.testing.assert_allclose(center, projection_center(poses[0]), atol=1e-9)
    assert agreeing_similarity(moved[:1], poses[:1], np.full(1, 5.0)) is None


def test_the_command(command: Callable[..., Any], tmp_path: Path) -> None:
    first = write(scene(NAMES[:5]), tmp_path / "first")
    second = write(elsewhere(scene(NAMES[2:])), tmp_path / "second")
    told = command("join", first, second, "--output", tmp_path / "out")
    assert told.status == 0
    assert "registered images" in told.out
    told = command("join", first, tmp_path / "gone", "--output", tmp_path / "out")
    assert (told.status, "no such folder" in told.err) == (2, True)
