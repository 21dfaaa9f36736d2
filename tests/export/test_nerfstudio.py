"""The folder read by the rules of nerfstudio's data parser (nerfstudio_dataparser.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from reconstruct import colmap
from reconstruct.errors import UsageError
from reconstruct.export import export

IN_EVERY_FRAME = ("fl_x", "fl_y", "cx", "cy", "w", "h", "k1", "k2", "p1", "p2")


def parse(folder: Path) -> tuple[dict[str, dict[str, Any]], np.ndarray]:
    """File -> its frame, and (P, 3) points. What is not in the file as a whole is in each frame;
    files are relative to transforms.json; points and poses are in one world."""
    meta = json.loads((folder / "transforms.json").read_text(encoding="utf-8"))
    assert meta["camera_model"] == "OPENCV"
    assert not {"applied_transform", "applied_scale", *IN_EVERY_FRAME} & set(meta)
    frames = {}
    for frame in meta["frames"]:
        path = folder / frame["file_path"]
        with Image.open(path) as image:
            assert image.size == (frame["w"], frame["h"])
        assert set(IN_EVERY_FRAME) <= set(frame)
        frames[path.relative_to(folder / "images").as_posix()] = frame
    header, _, body = (folder / meta["ply_file_path"]).read_bytes().partition(b"end_header\n")
    count = int(header.split(b"element vertex ")[1].split()[0])
    assert header.count(b"property float") >= 3
    kinds = {b"float": "<f4", b"uchar": "u1"}
    fields = [line.split() for line in header.splitlines() if line.startswith(b"property")]
    rows = np.frombuffer(body, [(name.decode(), kinds[kind]) for _, kind, name in fields], count)
    return frames, np.column_stack([rows[axis] for axis in "xyz"])


def test_photos_and_points_lie_beside_the_poses(output: Path) -> None:
    frames, points = parse(export(output, "nerfstudio"))
    model = colmap.read_model(output / "sparse")
    poses = colmap.model_poses(model)
    assert frames.keys() == poses.keys()
    expected = colmap.model_points(model)
    np.testing.assert_allclose(np.sort(points, axis=0), np.sort(expected, axis=0), rtol=1e-5)
    for name, frame in frames.items():
        matrix, pose = np.array(frame["transform_matrix"]), poses[name]
        np.testing.assert_allclose(-matrix[:3, 2], pose[2, :3], atol=1e-9)  # the way it looks
        np.testing.assert_allclose(-matrix[:3, 1], pose[1, :3], atol=1e-9)  # down
        np.testing.assert_allclose(pose @ matrix[:, 3], 0, atol=1e-9)  # its centre


def test_points_are_seen_where_the_model_sees_them(output: Path) -> None:
    """So that reprojection errors are the model's."""
    frames, _ = parse(export(output, "nerfstudio"))
    model = colmap.read_model(output / "sparse")
    cameras, poses, points = (
        colmap.model_cameras(model),
        colmap.model_poses(model),
        colmap.model_points(model),
    )
    for name, frame in frames.items():
        matrix = np.array(frame["transform_matrix"])
        local = (points - matrix[:3, 3]) @ matrix[:3, :3]  # y up, looking along -z
        front = local[:, 2] < 0
        x = frame["fl_x"] * local[:, 0] / -local[:, 2] + frame["cx"]
        y = frame["fl_y"] * -local[:, 1] / -local[:, 2] + frame["cy"]
        expected = colmap.project(cameras[name], poses[name], points)
        assert front.sum() > 100
        np.testing.assert_allclose(np.column_stack([x, y])[front], expected[front], atol=1e-9)


def test_distortion_that_nerfstudio_has_not() -> None:
    camera = colmap.make_camera("FULL_OPENCV", [9, 9, 5, 5, *range(8)], (10, 10))
    with pytest.raises(UsageError, match="nerfstudio"):
        colmap.opencv_intrinsics(camera)
    radial = colmap.make_camera("SIMPLE_RADIAL", [9, 5, 4, 0.1], (10, 8))
    expected = {"fl_x": 9, "fl_y": 9, "cx": 5, "cy": 4, "k1": 0.1, "k2": 0, "p1": 0, "p2": 0}
    assert colmap.opencv_intrinsics(radial) == expected
