"""``kapture``: photos, poses, keypoints and points in the format kapture 1.1.

    sensors/{sensors,records_camera,trajectories}.txt  sensors/records_data/NAME
    reconstruction/{points3d,observations}.txt
    reconstruction/keypoints/reconstruct/{keypoints.txt,NAME.kpt}

Poses are camera from world and pixels COLMAP's, as kapture's own converters from COLMAP leave them.
Every photo has a timestamp of its own: its place in the order of names.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from reconstruct import colmap
from reconstruct.errors import UsageError
from reconstruct.export.nerfstudio import link_or_copy
from reconstruct.export.result import Result
from reconstruct.geometry import quaternion

KIND = "reconstruct"
"""Name of the keypoints in the folder."""
MODELS = (
    *("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE"),
    *("FULL_OPENCV", "FOV", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE", "THIN_PRISM_FISHEYE"),
)
"""Camera models that kapture knows, with COLMAP's names and parameters."""


def write(result: Result, target: Path) -> None:
    """Write the folder. Raises UsageError for a name or a camera model that it cannot hold."""
    images, model = result.images, colmap.model_arrays(result.model)
    for name in model.names:
        if "," in name or name != name.strip():
            raise UsageError(
                f"kapture's files cannot hold the name {name!r}: they are separated by commas, and "
                "spaces at the ends are lost; rename the photo and run again"
            )
    _write_sensors(target / "sensors", model)
    _write_points(target / "reconstruction", model)
    keypoints = target / "reconstruction" / "keypoints" / KIND
    _write_table(keypoints / "keypoints.txt", "name, dtype, dsize", [(KIND, "float32", 2)])
    tracks = colmap.Tracks(result.model)
    for name in model.names:
        link_or_copy(images / name, target / "sensors" / "records_data" / name)
        file = keypoints / f"{name}.kpt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(tracks.keypoints(name).astype("<f4").tobytes())


def _write_sensors(folder: Path, model: colmap.ModelArrays) -> None:
    sensors = {}
    for camera in model.cameras:
        if camera.model.name not in MODELS:
            raise UsageError(
                f"kapture has no camera model {camera.model.name}, only {', '.join(MODELS)}; run "
                "again with dataset.camera_model set to one of them"
            )
        intrinsics = (camera.model.name, camera.width, camera.height, *camera.params)
        sensors[_device(camera)] = (_device(camera), "", "camera", *intrinsics)
    devices = [_device(camera) for camera in model.cameras]
    poses = [(*quaternion(pose[:, :3]), *pose[:, 3]) for pose in model.poses]
    stamped = list(enumerate(devices))
    head = "sensor_id, name, sensor_type, [sensor_params]+"
    _write_table(folder / "sensors.txt", head, sensors.values())
    _write_table(
        folder / "records_camera.txt",
        "timestamp, device_id, image_path",
        [(*stamp, name) for stamp, name in zip(stamped, model.names, strict=True)],
    )
    _write_table(
        folder / "trajectories.txt",
        "timestamp, device_id, qw, qx, qy, qz, tx, ty, tz",
        [(*stamp, *pose) for stamp, pose in zip(stamped, poses, strict=True)],
    )


def _write_points(folder: Path, model: colmap.ModelArrays) -> None:
    points = np.hstack([model.xyz, model.colors])
    _write_table(folder / "points3d.txt", "X, Y, Z, R, G, B", points)
    seen: list[list[str | int]] = [[i, KIND] for i in range(len(model.xyz))]
    for image, keypoint, point in zip(model.image, model.keypoint, model.point, strict=True):
        seen[point] += [model.names[image], int(keypoint)]
    head = "point3d_id, keypoints_type, [image_path, feature_id]*"
    _write_table(folder / "observations.txt", head, seen)


def _device(camera: colmap.Camera) -> str:
    return f"camera{camera.camera_id}"


def _write_table(path: Path, head: str, rows: Iterable[Iterable[object]]) -> None:
    """Numbers in full: read back, they are the same to the bit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["# kapture format: 1.1", f"# {head}"]
    lines += [", ".join(f"{v:.17g}" if isinstance(v, float) else str(v) for v in r) for r in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
