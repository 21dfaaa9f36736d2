"""The folder read by the documented format, kapture 1.1."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from reconstruct import colmap
from reconstruct.errors import UsageError
from reconstruct.export import export, kapture
from reconstruct.geometry import rotation_matrix


def table(path: Path) -> list[list[str]]:
    """Rows of fields: they are separated by commas, and blanks around them do not count."""
    first, *lines = path.read_text(encoding="utf-8").splitlines()
    assert first == "# kapture format: 1.1"
    return [[f.strip() for f in line.split(",")] for line in lines if not line.startswith("#")]


def test_points_are_seen_where_the_model_sees_them(output: Path) -> None:
    """So that poses, intrinsics, keypoints and reprojection errors are the model's."""
    folder, arrays = (
        export(output, "kapture"),
        colmap.model_arrays(colmap.read_model(output / "sparse")),
    )
    sensors = {row[0]: row[1:] for row in table(folder / "sensors" / "sensors.txt")}
    poses = {(t, d): np.array(p, float) for t, d, *p in table(folder / "sensors/trajectories.txt")}
    ((kind, dtype, size),) = table(folder / "reconstruction/keypoints/reconstruct/keypoints.txt")
    assert (kind, dtype, size) == ("reconstruct", "float32", "2")
    points = np.array(table(folder / "reconstruction" / "points3d.txt"), float)
    assert (points[:, 3:] == arrays.colors).all()
    seen: dict[str, list[tuple[int, int]]] = {}
    for point, _, *rest in table(folder / "reconstruction" / "observations.txt"):
        for name, keypoint in zip(rest[::2], rest[1::2], strict=True):
            seen.setdefault(name, []).append((int(keypoint), int(point)))
    errors = []
    for timestamp, device, name in table(folder / "sensors" / "records_camera.txt"):
        assert (folder / "sensors" / "records_data" / name).is_file()
        _, kind, model, width, height, *params = sensors[device]
        assert kind == "camera"
        camera = colmap.make_camera(model, tuple(map(float, params)), (int(width), int(height)))
        pose = poses[timestamp, device]
        cam_from_world = np.column_stack([rotation_matrix(pose[:4]), pose[4:]])
        rows = np.array(sorted(seen[name]))
        file = folder / "reconstruction" / "keypoints" / "reconstruct" / f"{name}.kpt"
        keypoints = np.fromfile(file, "<f4").reshape(-1, 2)[rows[:, 0]]
        projected = colmap.project(camera, cam_from_world, points[rows[:, 1], :3])
        errors.append(np.linalg.norm(projected - keypoints, axis=1))
    expected = np.linalg.norm(arrays.xy - arrays.projections(), axis=1)
    np.testing.assert_allclose(np.concatenate(errors), expected, atol=1e-4)  # keypoints in float32


def test_what_it_cannot_hold_is_refused(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kapture, "MODELS", ("FOV",))
    with pytest.raises(UsageError, match=r"no camera model \w+, only FOV; .*dataset\.camera_model"):
        export(output, "kapture")
    monkeypatch.undo()
    model = colmap.read_model(output / "sparse")
    image = model.images[model.reg_image_ids()[0]]
    photos = output.parent / "photos"
    shutil.copytree(export(output, "kapture") / "sensors" / "records_data", photos)
    (photos / image.name).rename(photos / "a, b.jpg")
    image.name = "a, b.jpg"
    shutil.rmtree(output / "sparse")
    colmap.write_model(model, output / "sparse")
    with pytest.raises(UsageError, match=r"cannot hold the name 'a, b\.jpg'"):
        export(output, "kapture", photos)
