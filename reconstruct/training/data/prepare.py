"""MegaDepth's undistorted COLMAP models -> the scene files that training reads.

    BASE/Undistorted_SfM/SCENE/images/NAME and sparse/ (or sparse-txt/)
    BASE/.../MegaDepth_v1/SCENE/dense0/depths/STEM.h5

One file SCENE.npz for each scene, in the layout of D2-Net's release (see
`reconstruct.training.data.megadepth`), so that either program reads the other's.

    overlap_matrix[i, j]      points that photos i and j share, of the points of i; -1 without depth
    scale_ratio_matrix[i, j]  least over them of the larger ratio of depth / focal length; -1: none
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct import colmap
from reconstruct.atomic import atomic_path
from reconstruct.errors import DataError, UsageError
from reconstruct.storage.hdf5 import read_array

logger = logging.getLogger(__name__)


def prepare_megadepth(base: Path, output: Path) -> list[str]:
    """Write the missing scene files; returns the names of the new ones.

    Args:
        base: Folder of MegaDepth.
        output: Folder of the scene files.

    Raises:
        UsageError: The folders do not exist.
        DataError: A model is broken.
    """
    undistorted = base / "Undistorted_SfM"
    if not undistorted.is_dir():
        raise UsageError(f"{undistorted}: no such folder; expected MegaDepth's undistorted models")
    depths = next((p for p in sorted(base.rglob("MegaDepth_v1")) if p.is_dir()), None)
    if depths is None:
        raise UsageError(f"{base}: no folder MegaDepth_v1 with depth maps below it")
    done = []
    for scene in sorted(path for path in undistorted.iterdir() if path.is_dir()):
        target = output / f"{scene.name}.npz"
        if target.exists():
            continue
        arrays = scene_arrays(base, scene, depths / scene.name)
        with atomic_path(target) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)
        logger.info("%s: %d photos with depth", target, _count(arrays["depth_paths"]))
        done.append(scene.name)
    return done


def scene_arrays(base: Path, scene: Path, depths: Path) -> dict[str, Any]:
    """The arrays of one scene file; images sorted by name.

    Args:
        base: Folder of MegaDepth.
        scene: Folder of the scene's undistorted model.
        depths: Folder of its depth maps.
    """
    folder = next((scene / n for n in ("sparse", "sparse-txt") if (scene / n).is_dir()), None)
    if folder is None:
        raise DataError(f"{scene}: no model (expected sparse/ or sparse-txt/)")
    model = colmap.read_model(folder)
    observed, cameras = colmap.observations(model), colmap.model_cameras(model)
    poses, points = colmap.model_poses(model), colmap.points_by_id(model)
    names = sorted(poses)
    files = [_depth_file(depths, name) for name in names]
    rows: dict[str, list[Any]] = {key: [] for key in _OBJECTS}
    for name, file in zip(names, files, strict=True):
        intrinsics = colmap.pinhole_matrix(cameras[name])
        photo = scene / "images" / name
        usable = file is not None and photo.is_file()
        row = (
            photo.relative_to(base).as_posix(),
            file.relative_to(base).as_posix() if file else None,
            intrinsics,
            np.vstack([poses[name], [0.0, 0.0, 0.0, 1.0]]),
            observed[name],
            normalised_depths(observed[name], points, poses[name], intrinsics),
        )
        for key, value in zip(_OBJECTS, row, strict=True):
            rows[key].append(value if usable else None)
    overlap, ratio = pair_matrices(rows["points3D_id_to_ndepth"])
    objects = {key: _objects(values) for key, values in rows.items()}
    return {**objects, "overlap_matrix": overlap, "scale_ratio_matrix": ratio}


_OBJECTS = (
    "image_paths",
    "depth_paths",
    "intrinsics",
    "poses",
    "points3D_id_to_2D",
    "points3D_id_to_ndepth",
)


def normalised_depths(
    observed: Mapping[int, Any],
    points: Mapping[int, NDArray[np.float64]],
    cam_from_world: NDArray[np.float64],
    intrinsics: NDArray[np.float64],
) -> dict[int, float]:
    """Point id -> depth in the camera / mean focal length: the world size of a pixel at the point.

    Args:
        observed: Point id -> position in the image.
        points: Point id -> (3,) world position.
        cam_from_world: (3, 4) pose.
        intrinsics: (3, 3) calibration matrix.
    """
    focal = 0.5 * (intrinsics[0, 0] + intrinsics[1, 1])
    axis, offset = cam_from_world[2, :3], cam_from_world[2, 3]
    return {i: float((axis @ points[i] + offset) / focal) for i in observed}


def pair_matrices(
    depths: list[dict[int, float] | None],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N, N) overlap and scale ratio of the images, from their normalised depths; -1 if
    undefined."""
    overlap, ratio = (np.full((len(depths), len(depths)), -1.0) for _ in range(2))
    for i, first in enumerate(depths):
        for j, second in enumerate(depths):
            if first is None or second is None or not first:
                continue
            shared = first.keys() & second.keys()
            overlap[i, j] = len(shared) / len(first)
            if shared:
                r = np.array([first[k] / second[k] for k in sorted(shared)])
                ratio[i, j] = float(np.min(np.maximum(r, 1 / r)))
    return overlap, ratio


def _depth_file(folder: Path, name: str) -> Path | None:
    """The depth map of a photo; None if it has none, or a mask in its place (values below 0)."""
    # dense1 and so on are of further models of the scene, in coordinates of their own.
    file = (folder / "dense0" / "depths" / name).with_suffix(".h5")
    if not file.is_file():
        return None
    try:
        # Photos of people have an ordinal mask where others have depth: -1 and up to 2.
        return file if np.min(read_array(file, "depth")) >= 0 else None
    except ValueError as error:
        raise DataError(f"{file}: {error}; download it again, or remove it") from error


def _objects(values: list[Any]) -> NDArray[Any]:
    array = np.empty(len(values), object)
    for index, value in enumerate(values):  # at once, NumPy would look into equal shapes
        array[index] = value
    return array


def _count(values: NDArray[Any]) -> int:
    return sum(value is not None for value in values)
