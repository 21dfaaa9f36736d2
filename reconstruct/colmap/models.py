"""COLMAP models: reading, writing, building, and their contents as arrays."""

from __future__ import annotations

import contextlib
import copy
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from numpy.typing import NDArray

from reconstruct.atomic import reserve
from reconstruct.colmap.cameras import Camera, make_camera
from reconstruct.colmap.model_check import check_content, check_files
from reconstruct.errors import UsageError
from reconstruct.files import read_text
from reconstruct.types import Intrinsics

Reconstruction = pycolmap.Reconstruction


def check_model(path: Path) -> None:
    """Check before any work that there is a COLMAP model in a folder, and that its intrinsics are
    possible. Raises UsageError."""
    kind = _kind(path)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(path / f"cameras.{kind}", folder)
        for part in ("images", "points3D"):
            _write_empty(Path(folder) / f"{part}.{kind}")
        _read(Path(folder), kind, path)


def _kind(path: Path) -> str:
    for kind in ("bin", "txt"):
        if all((path / f"{part}.{kind}").is_file() for part in ("cameras", "images")):
            return kind
    raise UsageError(f"{path}: no COLMAP model here (expected cameras and images, .bin or .txt)")


def read_model(path: Path) -> Reconstruction:
    """Read a COLMAP model folder, binary or text; images.txt and cameras.txt alone will do.

    Quaternions are brought to unit length. Raises UsageError if there is no model, or if it is
    damaged or holds impossible intrinsics or poses.
    """
    kind = _kind(path)
    with _with_points(path, kind) as folder:
        return _read(folder, kind, path)


def _read(folder: Path, kind: str, path: Path) -> Reconstruction:
    """The model of all three files in ``folder``, which errors call ``path``."""
    model = pycolmap.Reconstruction()
    try:
        if kind == "bin":
            check_files(folder)
        (model.read_binary if kind == "bin" else model.read_text)(folder)
        if kind == "txt":  # where COLMAP cuts names at their first space
            for image_id, name in _names_in_text(folder / "images.txt").items():
                model.images[image_id].name = name
        check_content(model)
    except (ValueError, RuntimeError, OSError, LookupError, MemoryError) as error:
        raise UsageError(f"{path}: not a readable COLMAP model ({_reason(error)})") from error
    return model


def _reason(error: Exception) -> str:
    text = str(error).strip()
    if "Check failed" in text:  # then follows a line of COLMAP's source
        return (
            "a line of its text files has too few or too many values, or one that is not a finite "
            "number"
        )
    return text[:300] or type(error).__name__


def _names_in_text(path: Path) -> dict[int, str]:
    """Image id -> name in an images.txt: two lines an image, the name after nine numbers."""
    names = {}
    lines = iter(read_text(path).split("\n"))
    for line in lines:
        if line.strip() and not line.startswith("#"):
            image_id, *_, name = line.strip().split(" ", 9)
            names[int(image_id)] = name
            next(lines, None)  # its observations
    return names


@contextlib.contextmanager
def _with_points(path: Path, kind: str) -> Iterator[Path]:
    """The model's folder, or a copy with an empty list of points, which COLMAP insists on."""
    if (path / f"points3D.{kind}").is_file():
        yield path
        return
    with tempfile.TemporaryDirectory() as copy:
        for file in path.glob(f"*.{kind}"):
            if file.is_file():
                shutil.copy(file, copy)
        _write_empty(Path(copy) / f"points3D.{kind}")
        yield Path(copy)


def _write_empty(path: Path) -> None:
    path.write_bytes(bytes(8) if path.suffix == ".bin" else b"")


def write_model(model: Reconstruction, folder: Path) -> None:
    """Write a binary model to a new folder. Raises OSError if the disk has no room for it."""
    folder.mkdir()
    _reserve(folder, model, keypoint=24, point=60, observation=8)
    model.write(folder)


def write_text_model(model: Reconstruction, folder: Path) -> None:
    """Write a text model to a new folder. Raises OSError if the disk has no room for it."""
    folder.mkdir()
    _reserve(folder, model, keypoint=80, point=200, observation=24)
    model.write_text(folder)


def write_points(model: Reconstruction, path: Path) -> None:
    """Write the points and their colours to a PLY file. Raises OSError if there is no room."""
    reserve(path.parent, 1000 + 30 * model.num_points3D())
    model.export_PLY(path)


def _reserve(
    folder: Path, model: Reconstruction, *, keypoint: int, point: int, observation: int
) -> None:
    """COLMAP does not notice a full disk. The numbers are its records' sizes in bytes, rounded up:
    of a keypoint, a point and an observation of a point."""
    size = sum(keypoint * image.num_points2D() + 1000 for image in model.images.values())
    size += point * model.num_points3D() + observation * model.compute_num_observations()
    reserve(folder, size + 1000 * (model.num_cameras() + 1))


def model_cameras(model: Reconstruction) -> dict[str, Camera]:
    """Image name -> camera."""
    return {image.name: model.cameras[image.camera_id] for image in model.images.values()}


def model_poses(model: Reconstruction) -> dict[str, NDArray[np.float64]]:
    """Name of every registered image -> (3, 4) cam_from_world."""
    images = [model.images[i] for i in model.reg_image_ids()]
    return {image.name: image.cam_from_world().matrix() for image in sorted(images, key=_name)}


def model_points(model: Reconstruction) -> NDArray[np.float64]:
    """(P, 3) positions of the 3D points, in the order of their ids."""
    rows = [model.points3D[i].xyz for i in sorted(model.points3D)]
    return np.array(rows, np.float64).reshape(-1, 3)


def model_summary(model: Reconstruction) -> dict[str, float]:
    """Registered images, points, observations, mean track length, mean reprojection error."""
    return {
        "registered_images": model.num_reg_images(),
        "points": model.num_points3D(),
        "observations": model.compute_num_observations(),
        "mean_track_length": round(model.compute_mean_track_length(), 3),
        "mean_reprojection_error_px": round(model.compute_mean_reprojection_error(), 4),
    }


def model_folder(path: Path) -> Path:
    """The COLMAP model that ``path`` stands for: itself, or ``sparse/`` of a finished output
    folder."""
    return path / "sparse" if (path / "sparse").is_dir() else path


def build_model(
    images: Sequence[tuple[str, Intrinsics, NDArray[Any], NDArray[np.float64], NDArray[np.int64]]],
    xyz: NDArray[np.float64],
) -> Reconstruction:
    """A COLMAP model from known poses and tracks.

    Args:
        images: Of each image its name, intrinsics, (3, 4) cam_from_world, (N, 2) keypoints, and
            (N,) for each keypoint the row of its point in ``xyz``. Images of equal intrinsics share
            a camera.
        xyz: (P, 3) points; those with fewer than two observations are left out.
    """
    model = pycolmap.Reconstruction()
    tracks = [pycolmap.Track() for _ in xyz]
    ids: dict[Intrinsics, int] = {}
    for image_id, (name, known, pose, keypoints, points) in enumerate(images, 1):
        if known not in ids:
            ids[known] = len(ids) + 1
            camera = make_camera(known.model, known.params, known.size)
            camera.camera_id = ids[known]
            model.add_camera_with_trivial_rig(camera)
        image = pycolmap.Image(
            name=name, keypoints=keypoints, camera_id=ids[known], image_id=image_id
        )
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose))
        for index, point in enumerate(points):
            tracks[point].add_element(image_id, index)
    for position, track in zip(xyz, tracks, strict=True):
        if track.length() >= 2:
            model.add_point3D(position, track)
    return model


def with_observations(
    model: Reconstruction,
    keypoints: Mapping[str, NDArray[np.float64]],
    points: Mapping[str, NDArray[np.int64]],
) -> Reconstruction:
    """A copy of a model, with the same cameras, poses and points but other keypoints and tracks.

    Args:
        model: The model to copy.
        keypoints: Name of every registered image -> (N, 2) COLMAP pixels.
        points: Name of every registered image -> (N,) id of the point that each keypoint sees, -1
            for none.

    Returns:
        The new model; images without a pose are left out.
    """
    fresh = pycolmap.Reconstruction()
    for camera in model.cameras.values():
        fresh.add_camera(pycolmap.Camera(camera.todict()))
    for rig in model.rigs.values():
        fresh.add_rig(copy.copy(rig))
    for frame_id in sorted(model.reg_frame_ids()):
        known_frame = model.frames[frame_id]
        frame = pycolmap.Frame(frame_id=frame_id, rig_id=known_frame.rig_id)
        for data_id in known_frame.data_ids:
            frame.add_data_id(data_id)
        frame.rig_from_world = known_frame.rig_from_world
        fresh.add_frame(frame)
    tracks = {i: pycolmap.Track() for i in model.points3D}
    for image_id in sorted(model.reg_image_ids()):
        known = model.images[image_id]
        image = pycolmap.Image(
            name=known.name,
            keypoints=keypoints[known.name],
            camera_id=known.camera_id,
            image_id=image_id,
        )
        image.frame_id = known.frame_id
        fresh.add_image(image)
        for index in np.flatnonzero(points[known.name] >= 0).tolist():
            tracks[int(points[known.name][index])].add_element(image_id, index)
    for point_id, point in model.points3D.items():
        seen = pycolmap.Point3D(xyz=point.xyz, color=point.color, track=tracks[point_id])
        fresh.add_point3D_with_id(point_id, seen)
    return fresh


def observations(model: Reconstruction) -> dict[str, dict[int, tuple[float, float]]]:
    """Name of every registered image -> id of each 3D point that it observes -> pixel position."""
    result: dict[str, dict[int, tuple[float, float]]] = {}
    for image_id in model.reg_image_ids():
        image = model.images[image_id]
        points = (image.point2D(index) for index in image.get_observation_point2D_idxs())
        result[_name(image)] = {p.point3D_id: (float(p.xy[0]), float(p.xy[1])) for p in points}
    return result


def points_by_id(model: Reconstruction) -> dict[int, NDArray[np.float64]]:
    """Id of every 3D point -> (3,) position."""
    return {int(i): np.asarray(model.points3D[i].xyz, np.float64) for i in sorted(model.points3D)}


def _name(image: pycolmap.Image) -> str:
    return str(image.name)
