"""The points of images whose poses are known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pycolmap

from reconstruct.colmap.database import image_of, opened
from reconstruct.colmap.mapping import incremental_options, merge_options, pixel_options
from reconstruct.colmap.models import Reconstruction
from reconstruct.colmap.placing import restore_poses
from reconstruct.errors import EstimationError


def triangulate(
    database: Path,
    images: Path,
    scratch: Path,
    poses: Reconstruction,
    *,
    seed: int,
    threads: int,
    options: Mapping[str, Any],
    pixel_scale: float = 1.0,
) -> Reconstruction:
    """Triangulate the database's matches from known poses and intrinsics, which stay as they are.

    Images are matched by name; those of ``poses`` that the database lacks are left out, and so are
    the database's images without a pose.

    Args:
        database: COLMAP database with verified matches.
        images: Folder to which the image names are relative.
        scratch: Folder for temporary files.
        poses: Model with the poses and intrinsics.
        seed: Seed of RANSAC.
        threads: Number of threads.
        options: Further values for COLMAP's options, by their (nested) names.
        pixel_scale: Factor for COLMAP's own thresholds in pixels.

    Raises:
        EstimationError: No image is in both.
    """
    known = {image.name: image for image in poses.images.values() if image.has_pose}
    model = pycolmap.Reconstruction()
    with opened(database) as contents:
        for camera in contents.read_all_cameras():
            model.add_camera_with_trivial_rig(camera)
        for image in contents.read_all_images():
            if image.name in known:
                pose = known[image.name].cam_from_world()
                model.add_image_with_trivial_frame(image_of(contents, image), pose)
    if not model.num_reg_images():
        raise EstimationError("no image of the data set has a pose in the reference model")
    return triangulate_again(
        model,
        database,
        images,
        scratch,
        seed=seed,
        threads=threads,
        options=options,
        pixel_scale=pixel_scale,
        exact=poses,
    )


def triangulate_again(
    model: Reconstruction,
    database: Path,
    images: Path,
    scratch: Path,
    *,
    seed: int,
    threads: int,
    options: Mapping[str, Any],
    pixel_scale: float = 1.0,
    exact: Reconstruction | None = None,
) -> Reconstruction:
    """A model with the database's ids whose points are made anew from the database's matches.

    Poses and intrinsics stay as they are.

    Args:
        model: The model; it is changed.
        database: COLMAP database with verified matches.
        images: Folder to which the image names are relative.
        scratch: Folder for temporary files.
        seed: Seed of RANSAC.
        threads: Number of threads.
        options: Further values for COLMAP's options, by their (nested) names.
        pixel_scale: Factor for COLMAP's own thresholds in pixels.
        exact: Model with the poses; None: those of ``model``.
    """
    exact = exact or pycolmap.Reconstruction(model)
    pipeline = incremental_options(set(model.cameras), 1, seed, threads)
    merge_options(pipeline, pixel_options(pixel_scale))
    merge_options(pipeline, options)
    scratch.mkdir(parents=True, exist_ok=True)
    result = pycolmap.triangulate_points(model, database, images, scratch, True, pipeline, False)
    restore_poses(result, exact)  # adjusting the points rounds the poses' last digits
    return result
