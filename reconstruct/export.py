"""A run's result in the formats of other programs -> OUT/export/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from reconstruct import colmap
from reconstruct.errors import UnknownNameError, UsageError
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.matches import MatchStore, key_pair
from reconstruct.workspace import Workspace, atomic_path, reserve

FORMATS = ("ply", "text", "nerfstudio", "hloc")


def export(output: Path, format_: str) -> Path:
    """Write the result of ``output`` as ``format_``; returns the file or folder.

    ply: the points of the model. text: COLMAP's text model. nerfstudio: transforms.json, camera
    to world, OpenGL axes, the model's world. hloc: features.h5 and matches.h5 as hloc stores them
    (pixel centres at integers), but float32 and int32, so that nothing is rounded or wraps.
    Raises UsageError if there is no such result, UnknownNameError for another format.
    """
    workspace = Workspace(output)
    if format_ not in FORMATS:
        raise UnknownNameError("export format", format_, FORMATS)
    if format_ == "hloc":
        return _hloc(workspace)
    if not workspace.sparse.is_dir():
        raise UsageError(f"{output}: no mapped model (sparse/) here; run the pipeline first")
    model = colmap.read_model(workspace.sparse)
    target = (
        output / "export" / {"ply": "points.ply", "text": "text"}.get(format_, "transforms.json")
    )
    with atomic_path(target) as temporary:
        if format_ == "ply":
            model.export_PLY(temporary)
        elif format_ == "text":
            _check_names(model)
            temporary.mkdir()
            model.write_text(temporary)
        else:
            temporary.write_text(json.dumps(transforms(model), indent=1), encoding="utf-8")
    return target


def _check_names(model: colmap.Reconstruction) -> None:
    for name in colmap.model_poses(model):
        if " " in name:
            raise UsageError(
                f"COLMAP's text format cannot hold the name {name!r}: readers cut it at the space; "
                "use sparse/ as it is, or rename the photo and run again"
            )


def transforms(model: colmap.Reconstruction) -> dict[str, Any]:
    """nerfstudio's transforms.json of a model: one frame a registered image."""
    frames = []
    cameras = colmap.model_cameras(model)
    for name, pose in colmap.model_poses(model).items():
        camera = cameras[name]
        world_from_cam = np.linalg.inv(np.vstack([pose, [0, 0, 0, 1]]))
        world_from_cam[:3, 1:3] *= -1  # OpenGL: y up, looking along -z
        frames.append(
            {
                "file_path": name,
                "transform_matrix": world_from_cam.tolist(),
                "w": camera.width,
                "h": camera.height,
                **colmap.opencv_intrinsics(camera),
            }
        )
    return {"camera_model": "OPENCV", "frames": frames}


def _hloc(workspace: Workspace) -> Path:
    features, matches = FeatureStore(workspace.features), MatchStore(workspace.matches)
    names = sorted(features.fingerprints())
    if not names:
        raise UsageError(f"{workspace.root}: no features here; run the pipeline first")
    target = workspace.root / "export" / "hloc"
    stored = [*workspace.features.iterdir(), *workspace.matches.glob("*")]
    target.parent.mkdir(exist_ok=True)
    reserve(target.parent, 2 * sum(file.stat().st_size for file in stored))  # HDF5 would crash
    counts = {}
    with atomic_path(target) as temporary:
        temporary.mkdir()
        with h5py.File(temporary / "features.h5", "w") as file:
            for name in names:
                found = features.load(name)
                counts[name] = len(found)
                group = file.create_group(name)
                group["keypoints"] = found.keypoints - np.float32(0.5)
                group["descriptors"] = found.descriptors.T
                group["scores"] = found.scores
                group["image_size"] = np.asarray(found.image_size)
        with h5py.File(temporary / "matches.h5", "w") as file:
            for pair in sorted(key_pair(key) for key in matches.fingerprints()):
                rows = matches.load(pair).astype(np.int64)
                if (rows >= [counts.get(name, 0) for name in pair]).any():
                    raise UsageError(
                        f"{workspace.root}: features changed since {pair} was matched; run the "
                        "pipeline to its end first"
                    )
                partner = np.full(counts[pair[0]], -1, np.int32)
                partner[rows[:, 0]] = rows[:, 1]
                key = "/".join(name.replace("/", "-") for name in pair)
                if key in file:
                    raise UsageError(
                        f"hloc writes {pair} and another pair of images as {key!r}: rename one"
                    )
                group = file.create_group(key)
                group["matches0"] = partner
                group["matching_scores0"] = (partner >= 0).astype(np.float32)
    return target
