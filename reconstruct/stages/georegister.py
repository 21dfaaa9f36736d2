"""Models in metres: aligned with where their photos were taken -> gps.json."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reconstruct import colmap
from reconstruct.atomic import atomic_path
from reconstruct.datasets import Dataset
from reconstruct.datasets.gps import UNKNOWN_M, VERTICAL, GpsPositions
from reconstruct.errors import EstimationError, ImageError
from reconstruct.evaluation.georegistration import Cameras, Georegistration, georegister
from reconstruct.files import read_json
from reconstruct.geometry import Float64, projection_center
from reconstruct.images import exif_orientation, read_image_bytes
from reconstruct.workspace import Workspace

logger = logging.getLogger(__name__)

DOWN: Mapping[int, tuple[int, int]] = {3: (1, -1), 4: (1, -1), 5: (0, 1), 6: (0, 1)} | {
    7: (0, -1),
    8: (0, -1),
}
"""EXIF orientation -> the axis of the stored picture that points down (0: x, 1: y), and its sign;
for others y."""


def align_with_gps(
    model: colmap.Reconstruction, dataset: Dataset, gps: GpsPositions, seed: int
) -> dict[str, Any]:
    """Bring a model to metres in the frame of ``gps``, in place.

    Args:
        model: The model.
        dataset: Its photos, whose EXIF data tell how they were held.
        gps: Where they were taken.
        seed: Of the random starts.

    Returns:
        The model's entry in gps.json, as JSON types.
    """
    poses = colmap.model_poses(model)
    known_size = dataset.rigs is not None and dataset.rigs.has_size and colmap.has_rigs(model)
    names = sorted(set(poses) & set(gps.positions))
    cameras = _cameras(dataset, {name: poses[name] for name in names})
    positions, sigma = _rows(gps.positions, names), _rows(gps.sigma, names)
    try:
        found = georegister(cameras, positions, sigma, gps.check_altitudes, known_size, seed)
    except EstimationError as error:
        return {"aligned": False, "why": str(error), "photos": len(names)}
    colmap.transform_model(model, found.scale, found.rotation, found.translation)
    known = bool((sigma[:, 2] < UNKNOWN_M).any())
    return _record(names, found, known)


def priors(
    model: colmap.Reconstruction, gps: GpsPositions, aligned: Mapping[str, Any]
) -> dict[str, colmap.Prior]:
    """Positions that a bundle adjustment of an aligned model is to keep to, with their deviations.

    Altitudes that are not known, or contradict each other, are replaced by those of the model.
    """
    result = {}
    for name, pose in colmap.model_poses(model).items():
        if name in gps.positions:
            position, sigma = gps.positions[name].copy(), gps.sigma[name].copy()
            if aligned["altitudes"] == "contradictory" or sigma[2] >= UNKNOWN_M:
                position[2] = projection_center(pose)[2]
                sigma[2] = VERTICAL * sigma[0]
            result[name] = (position, sigma)
    return result


def write_gps(workspace: Workspace, gps: GpsPositions, models: Sequence[Mapping[str, Any]]) -> None:
    """Write gps.json: the frame, and of each model how it agrees with the positions."""
    for number, aligned in enumerate(models, 1):
        if not aligned["aligned"]:
            told = "map: model %d is not aligned with GPS, and not in metres: %s"
            logger.warning(told, number, aligned["why"])
    latitude, longitude, altitude = gps.origin
    content = {
        "frame": "metres east (x), north (y) and up (z) of the origin",
        "origin": {"latitude": latitude, "longitude": longitude, "altitude": altitude},
        "models": list(models),
    }
    with atomic_path(workspace.gps) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_gps(workspace: Workspace) -> dict[str, Any] | None:
    """gps.json; None if there is none, or none that can be read."""
    try:
        content = read_json(workspace.gps)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("models") else None


def gps_figures(aligned: Mapping[str, Any]) -> dict[str, Any]:
    """What the summary tells of a model's agreement with GPS."""
    if not aligned["aligned"]:
        return {"gps": "not aligned"}
    figures = {
        "gps_photos": aligned["photos"],
        "gps_outliers": len(aligned["outliers"]),
        "gps_rms_horizontal_m": aligned["rms_horizontal_m"],
        "gps_rms_vertical_m": aligned["rms_vertical_m"],
    }
    return figures | (
        {} if aligned["altitudes"] == "used" else {"gps_altitudes": aligned["altitudes"]}
    )


def _rows(values: Mapping[str, Float64], names: Sequence[str]) -> Float64:
    return np.array([values[name] for name in names], np.float64).reshape(-1, 3)


def _cameras(dataset: Dataset, poses: Mapping[str, Float64]) -> Cameras:
    turned = [DOWN.get(orientation(dataset, name), (1, 1)) for name in poses]
    axes = [pose[:, :3] for pose in poses.values()]
    down = [sign * axis[k] + axis[2] for axis, (k, sign) in zip(axes, turned, strict=True)]
    level = [axis[1 - k] for axis, (k, _) in zip(axes, turned, strict=True)]
    return Cameras(
        centers=np.array([projection_center(pose) for pose in poses.values()]).reshape(-1, 3),
        level=np.array(level).reshape(-1, 3),
        down=np.array(down).reshape(-1, 3),
    )


def orientation(dataset: Dataset, name: str) -> int:
    """EXIF orientation of a photo; 1 if it cannot be read."""
    try:
        return exif_orientation(read_image_bytes(dataset.path(name)))
    except ImageError:
        return 1


def _record(names: Sequence[str], found: Georegistration, known: bool) -> dict[str, Any]:
    """known: whether there are altitudes that count."""
    kept = found.residuals[~found.outliers]
    square = np.mean(kept**2, axis=0) if len(kept) else np.zeros(3)
    return {
        "aligned": True,
        "photos": len(names),
        "outliers": [n for n, out in zip(names, found.outliers, strict=True) if out],
        "rms_horizontal_m": round(float(np.sqrt(square[:2].sum())), 4),
        "rms_vertical_m": round(float(np.sqrt(square[2])), 4),
        "altitudes": "not used" if not known else "used" if found.altitudes else "contradictory",
        "cameras_taken_as_level": found.level,
        "residuals_m": {
            name: [round(float(value), 4) for value in row]
            for name, row in zip(names, found.residuals, strict=True)
        },
    }
