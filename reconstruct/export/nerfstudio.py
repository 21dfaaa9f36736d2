"""``nerfstudio``: a folder that ``ns-train METHOD --data FOLDER`` takes as it is.

    transforms.json  points.ply  images/NAME

transforms.json has camera to world, OpenGL axes, in the model's world; intrinsics and distortion
by frame; nerfstudio's pixels are COLMAP's. Paths in it are relative to the folder. Nerfstudio takes
distortion into account, so the photos stay as they are.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from reconstruct import colmap
from reconstruct.export.result import Result

POINTS = "points.ply"


def write(result: Result, target: Path) -> None:
    """Write the folder. Raises UsageError for a camera model that nerfstudio has not."""
    content = transforms(result.model)
    images = result.images
    target.mkdir()
    for name in colmap.model_poses(result.model):
        link_or_copy(images / name, target / "images" / name)
    colmap.write_points(result.model, target / POINTS)
    (target / "transforms.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def transforms(model: colmap.Reconstruction) -> dict[str, Any]:
    """transforms.json of a model whose photos are in ``images/``: one frame a registered image."""
    frames = []
    cameras = colmap.model_cameras(model)
    for name, pose in colmap.model_poses(model).items():
        camera = cameras[name]
        world_from_cam = np.linalg.inv(np.vstack([pose, [0, 0, 0, 1]]))
        world_from_cam[:3, 1:3] *= -1  # OpenGL: y up, looking along -z
        frames.append(
            {
                "file_path": f"images/{name}",
                "transform_matrix": world_from_cam.tolist(),
                "w": camera.width,
                "h": camera.height,
                **colmap.opencv_intrinsics(camera),
            }
        )
    return {"camera_model": "OPENCV", "ply_file_path": POINTS, "frames": frames}


def link_or_copy(source: Path, target: Path) -> None:
    """The file under another name: a hard link where the file system has them, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):  # another disk, or one without hard links
        os.link(source.resolve(), target)
        return
    shutil.copyfile(source, target)
