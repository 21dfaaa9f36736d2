"""A model on another database, and back in its place after it has grown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from reconstruct import colmap
from reconstruct.errors import EstimationError, UsageError
from reconstruct.geometry import projection_center
from reconstruct.similarity import similarity_from_poses

SIZE = (640, 480)
KEYPOINTS = {
    "a.jpg": [[10.0, 10], [20, 20], [30, 30]],
    "b.jpg": [[11.0, 10], [21, 20], [31, 30]],
    "c.jpg": [[12.0, 10], [22, 20], [32, 30]],
}


def write(folder: Path, names: list[str], keypoints: dict[str, list[list[float]]]) -> Path:
    """A database of images with a camera each, without matches."""
    camera = colmap.make_camera("PINHOLE", [500, 500, 320, 240], SIZE)
    assigned = colmap.assign_cameras(
        dict.fromkeys(names, SIZE),
        given=lambda name: None,
        guess=lambda name: camera,
        group=lambda name: name,
    )
    path = folder / "database.db"
    colmap.write_database(
        path, assigned, lambda name: np.array(keypoints[name], np.float32), iter(())
    )
    return path


def model() -> colmap.Reconstruction:
    """Three images with a camera of their own each, three points seen by all."""
    built = []
    for x, (name, keypoints) in enumerate(KEYPOINTS.items()):
        focal = 500.0 + x
        intrinsics = colmap.intrinsics(
            colmap.make_camera("PINHOLE", [focal, focal, 320, 240], SIZE)
        )
        turn = Rotation.from_euler("xyz", [0.1 * x, 0.2, 0.3 + x]).as_matrix()
        pose = np.column_stack([turn, [x, 0.1, 0.2]])
        built.append((name, intrinsics, pose, np.array(keypoints), np.arange(3)))
    return colmap.build_model(built, np.array([[0.0, 0, 5], [1, 0, 5], [0, 1, 5]]))


def test_poses_intrinsics_and_tracks_go_by_name(tmp_path: Path) -> None:
    source = model()
    names = ["0 new.jpg", "a.jpg", "b.jpg", "c.jpg"]  # the new one shifts all ids
    moved = {**KEYPOINTS, "0 new.jpg": [[1.0, 1]]}
    moved["b.jpg"] = [[11.0, 14], [21, 60], [31, 30]]  # by refinement; not by it; not at all
    placed = colmap.place_on_database(source, write(tmp_path, names, moved))
    assert placed.absent == []
    assert placed.kept == pytest.approx(8 / 9)
    ids = {image.name: i for i, image in placed.model.images.items()}
    assert ids == {"a.jpg": 2, "b.jpg": 3, "c.jpg": 4}
    old, new = colmap.model_poses(source), colmap.model_poses(placed.model)
    for name, pose in old.items():
        np.testing.assert_array_equal(new[name], pose)
    cameras = colmap.model_cameras(placed.model)
    assert [cameras[name].params[0] for name in old] == [500, 501, 502]
    tracks = {
        tuple(placed.model.points3D[i].xyz): sorted(
            (e.image_id, e.point2D_idx) for e in placed.model.points3D[i].track.elements
        )
        for i in placed.model.points3D
    }
    assert tracks == {
        (0, 0, 5): [(2, 0), (3, 0), (4, 0)],
        (1, 0, 5): [(2, 1), (4, 1)],
        (0, 1, 5): [(2, 2), (3, 2), (4, 2)],
    }
    assert placed.model.images[3].points2D[0].xy.tolist() == [11, 14]


def test_photos_that_are_gone_and_cameras_that_do_not_agree(tmp_path: Path) -> None:
    for folder in "abc":
        (tmp_path / folder).mkdir()
    placed = colmap.place_on_database(model(), write(tmp_path / "a", ["a.jpg", "b.jpg"], KEYPOINTS))
    assert (placed.absent, sorted(colmap.model_poses(placed.model))) == (
        ["c.jpg"],
        ["a.jpg", "b.jpg"],
    )
    with pytest.raises(EstimationError, match="fewer than two in common"):
        colmap.place_on_database(model(), write(tmp_path / "b", ["a.jpg"], KEYPOINTS))
    database = write(tmp_path / "c", list(KEYPOINTS), KEYPOINTS)
    source = model()
    source.images[2].camera.model = pycolmap.CameraModelId.SIMPLE_RADIAL
    source.images[2].camera.params = [500, 320, 240, 0]
    with pytest.raises(UsageError, match=r"b\.jpg: its camera has model SIMPLE_RADIAL .*cameras"):
        colmap.place_on_database(source, database)


@pytest.mark.parametrize("count", [2, 5])
def test_the_similarity_of_two_worlds_from_cameras_on_a_line(count: int) -> None:
    rotation = Rotation.from_euler("xyz", [0.4, -0.2, 1.1]).as_matrix()
    scale, shift = 2.5, np.array([1.0, -4, 7])
    source, target = [], []
    for i in range(count):
        turn = Rotation.from_euler("xyz", [i, 0.3, 0.1]).as_matrix()
        center = np.array([2.0 * i, 3, 1])
        source.append(np.column_stack([turn, -turn @ center]))
        turned = turn @ rotation.T
        target.append(np.column_stack([turned, -turned @ (scale * rotation @ center + shift)]))
    found = similarity_from_poses(np.array(source), np.array(target))
    assert found[0] == pytest.approx(scale)
    np.testing.assert_allclose(found[1], rotation, atol=1e-12)
    np.testing.assert_allclose(found[2], shift, atol=1e-12)


def test_one_camera_and_cameras_in_one_place_leave_the_similarity_open() -> None:
    pose = np.eye(3, 4)
    for poses in ([], [pose], [pose, pose]):
        with pytest.raises(EstimationError, match="two cameras in different places"):
            similarity_from_poses(np.array(poses), np.array(poses))


def test_a_model_that_was_moved_returns_to_its_place() -> None:
    before, after = model(), model()
    turn = pycolmap.Rotation3d(Rotation.from_euler("xyz", [1, 2, 3]).as_quat())
    after.transform(pycolmap.Sim3d(3.0, turn, np.array([5.0, 6, 7])))
    colmap.return_to(after, before, exactly=False)
    np.testing.assert_allclose(colmap.model_points(after), colmap.model_points(before), atol=1e-12)
    old = colmap.model_poses(before)
    for name, pose in colmap.model_poses(after).items():
        np.testing.assert_allclose(
            projection_center(pose), projection_center(old[name]), atol=1e-12
        )
    colmap.return_to(after, before, exactly=True)
    for name, pose in colmap.model_poses(after).items():
        np.testing.assert_array_equal(pose, old[name])
