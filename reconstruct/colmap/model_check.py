"""Is a COLMAP model what it claims to be? Checked before COLMAP reads it, and after.

COLMAP trusts the counts in a binary file: one that is truncated or damaged makes it loop for hours
or ask for all memory. So the records are walked first, against the size of the file. What can be
read may still be impossible (a focal length of -1, a quaternion of zeros), and COLMAP would compute
with it silently.

Layout: https://colmap.github.io/format.html#binary-file-format
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pycolmap
from numpy.typing import NDArray

from reconstruct.files import open_regular

T = TypeVar("T")

UNIT_TOLERANCE = 0.05
"""How far from 1 the length of a quaternion may be before it is no rounding."""

_NO_POINT = 2**64 - 1
_POINT2D = np.dtype([("xy", "<f8", 2), ("point", "<u8")])
_ELEMENT = np.dtype([("image", "<u4"), ("index", "<u4")])
_POSE_BYTES = 7 * 8


def check_files(folder: Path) -> None:
    """Walk the binary files of a model. Raises ValueError naming the file that is damaged."""
    counts, seen = _walk(folder / "images.bin", _images)
    _walk(folder / "cameras.bin", _cameras)
    points, elements = _walk(folder / "points3D.bin", _points)
    if len(points) and not np.isin(seen[seen != _NO_POINT], points).all():
        raise ValueError("images.bin observes points that are not in points3D.bin")
    images = np.array(sorted(counts), np.uint32)
    limits = np.array([counts[i] for i in images.tolist()], np.uint64)
    if len(elements):
        place = np.searchsorted(images, elements["image"])
        known = place < len(images)
        known[known] = images[place[known]] == elements["image"][known]
        if not known.all() or (elements["index"] >= limits[place]).any():
            raise ValueError("points3D.bin names observations that are not in images.bin")
    for name, walk in (("rigs", _rigs), ("frames", _frames)):
        if (folder / f"{name}.bin").exists():
            _walk(folder / f"{name}.bin", walk)


def check_content(model: pycolmap.Reconstruction) -> None:
    """Check intrinsics and poses, and bring quaternions to unit length.

    Raises ValueError naming the camera or image.
    """
    for camera_id, camera in model.cameras.items():
        reason = bad_intrinsics(camera)
        if reason:
            raise ValueError(f"camera {camera_id}: {reason}")
    for frame in model.frames.values():
        if frame.has_pose():
            pose = frame.rig_from_world
            quaternion = np.asarray(pose.rotation.quat, np.float64)
            length = math.hypot(*quaternion)
            if 1e-12 < abs(length - 1.0) <= UNIT_TOLERANCE:
                rotation = pycolmap.Rotation3d(quaternion / length)
                frame.rig_from_world = pycolmap.Rigid3d(rotation, pose.translation)
    for image_id in model.reg_image_ids():
        image = model.images[image_id]
        pose = image.cam_from_world()
        length = math.hypot(*pose.rotation.quat)
        if not abs(length - 1.0) <= UNIT_TOLERANCE:
            raise ValueError(f"image {image.name}: its quaternion has length {length:.3g}, not 1")
        if not np.isfinite(pose.translation).all():
            raise ValueError(f"image {image.name}: its translation is not finite")


FOCAL_LIMITS = (1e-3, 1e5)
"""Least and largest focal length, in longest edges of the photo."""
CENTER_LIMIT = 1e3
"""Of the principal point, which lies outside of cropped photos, in longest edges."""
DISTORTION_LIMIT = 1e6


def bad_intrinsics(camera: pycolmap.Camera) -> str | None:
    """Why a camera cannot be one: its size, focal lengths and parameters; None if it can."""
    if not (0 < min(camera.width, camera.height) <= max(camera.width, camera.height) < 2**31):
        return f"{camera.width} x {camera.height} pixels is no size of a photo"
    if not np.isfinite(camera.params).all():
        return f"its parameters are not finite: {camera.params_to_string()}"
    focal = camera.params[list(camera.focal_length_idxs())]
    if (focal <= 0).any():
        return f"its focal length is not above 0: {camera.params_to_string()}"
    edge = max(camera.width, camera.height)
    center, others = (
        np.abs(camera.params[list(indices)])
        for indices in (camera.principal_point_idxs(), camera.extra_params_idxs())
    )
    if (
        (focal < edge * FOCAL_LIMITS[0]).any()
        or (focal > edge * FOCAL_LIMITS[1]).any()
        or (center > edge * CENTER_LIMIT).any()
        or (others > DISTORTION_LIMIT).any()
    ):
        return f"no lens has these parameters: {camera.params_to_string()}"
    return None


class _Cursor:
    """Where one is in a file. Reading beyond its end raises struct.error or ValueError."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def numbers(self, layout: struct.Struct) -> tuple[int, ...]:
        values = layout.unpack_from(self.data, self.at)
        self.at += layout.size
        return values

    def skip(self, size: int) -> int:
        """Returns where the skipped bytes begin."""
        start, self.at = self.at, self.at + size
        if self.at > len(self.data):
            raise ValueError("ends too early")
        return start

    def count(self, least: int) -> int:
        """A number of records of at least so many bytes each, which must fit into what is left."""
        (number,) = self.numbers(_U64)
        if number * least > len(self.data) - self.at:
            raise ValueError(f"claims {number} records, for which it is too short")
        return number


_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_CAMERA = struct.Struct("<IiQQ")
_SENSOR = struct.Struct("<iI")
_POINT = struct.Struct("<Q3d11xQ")
_MODEL_PARAMS = {
    int(value.value): len(pycolmap.Camera.create_from_model_id(1, value, 1.0, 2, 2).params)
    for name, value in pycolmap.CameraModelId.__members__.items()
    if name != "INVALID"
}


def _walk(path: Path, walk: Callable[[_Cursor], T]) -> T:
    try:
        with (
            open_regular(path) as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return walk(_Cursor(data))
    except (ValueError, struct.error, LookupError, OSError) as error:
        raise ValueError(f"{path.name}: {error}") from error


def _cameras(cursor: _Cursor) -> None:
    for _ in range(cursor.count(_CAMERA.size)):
        _, model, _, _ = cursor.numbers(_CAMERA)
        if model not in _MODEL_PARAMS:
            raise ValueError(f"{model} is the number of no camera model")
        cursor.skip(8 * _MODEL_PARAMS[model])


def _images(cursor: _Cursor) -> tuple[dict[int, int], NDArray[np.uint64]]:
    """Image id -> number of its 2D points; ids of the 3D points of all of them."""
    counts: dict[int, int] = {}
    points = []
    for _ in range(cursor.count(4 + _POSE_BYTES + 4 + 1 + 8)):
        (image_id,) = cursor.numbers(_U32)
        cursor.skip(_POSE_BYTES + 4)
        end = cursor.data.find(b"\0", cursor.at)
        if end < 0:
            raise ValueError("a name without an end")
        cursor.data[cursor.at : end].decode("utf-8")
        cursor.at = end + 1
        counts[image_id] = cursor.count(_POINT2D.itemsize)
        start = cursor.skip(counts[image_id] * _POINT2D.itemsize)
        points.append(np.frombuffer(cursor.data[start : cursor.at], _POINT2D)["point"])
    return counts, np.concatenate(points) if points else np.empty(0, np.uint64)


def _points(cursor: _Cursor) -> tuple[NDArray[np.uint64], NDArray[np.void]]:
    """Ids of the points, and all elements of their tracks."""
    ids, positions, tracks = [], [], bytearray()
    data = cursor.data
    for _ in range(cursor.count(_POINT.size)):
        point_id, x, y, z, length = cursor.numbers(_POINT)
        start = cursor.skip(8 * length)
        tracks += data[start : cursor.at]
        ids.append(point_id)
        positions.append((x, y, z))
    if not np.isfinite(np.array(positions)).all():
        raise ValueError("a point is not at a finite position")
    return np.array(ids, np.uint64), np.frombuffer(tracks, _ELEMENT)


def _rigs(cursor: _Cursor) -> None:
    for _ in range(cursor.count(8)):
        cursor.skip(4)
        (sensors,) = cursor.numbers(_U32)
        for index in range(sensors):
            cursor.skip(_SENSOR.size)
            if index:  # the first one is the reference: it has no pose in the rig
                start = cursor.skip(1)
                cursor.skip(_POSE_BYTES if cursor.data[start] else 0)


def _frames(cursor: _Cursor) -> None:
    for _ in range(cursor.count(8 + _POSE_BYTES + 4)):
        cursor.skip(8 + _POSE_BYTES)
        (count,) = cursor.numbers(_U32)
        cursor.skip(count * (_SENSOR.size + 8))
