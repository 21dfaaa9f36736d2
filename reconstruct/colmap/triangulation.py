"""The points of images whose poses are known."""

from __future__ import annotations

from pathlib import Path

import pycolmap

from reconstruct.colmap.database import image_of, opened
from reconstruct.colmap.mapping import (
    MapperOptions,
    incremental_options,
    merge_options,
    pixel_options,
)
from reconstruct.colmap.models import Reconstruction
from reconstruct.colmap.placing import restore_poses
from reconstruct.errors import EstimationError


def triangulate(
    database: Path,
    images: Path,
    scratch: Path,
    poses: Reconstruction,
    mapper: MapperOptions,
) -> Reconstruction:
    """Triangulate the database's matches from known poses and intrinsics, which stay as they are.

    Images are matched by name; those of ``poses`` that the database lacks are left out, and so are
    the database's images without a pose.

    Args:
        database: COLMAP database with verified matches.
        images: Folder to which the image names are relative.
        scratch: Folder for temporary files.
        poses: Model with the poses and intrinsics.
        mapper: Seed, threads, and options of COLMAP.

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
    return triangulate_again(model, database, images, scratch, mapper, exact=poses)


def triangulate_again(
    model: Reconstruction,
    database: Path,
    images: Path,
    scratch: Path,
    mapper: MapperOptions,
    *,
    exact: Reconstruction | None = None,
) -> Reconstruction:
    """A model with the database's ids whose points are made anew from the database's matches.

    Poses and intrinsics stay as they are.

    Args:
        model: The model; it is changed.
        database: COLMAP database with verified matches.
        images: Folder to which the image names are relative.
        scratch: Folder for temporary files.
        mapper: Seed, threads, and options of COLMAP.
        exact: Model with the poses; None: those of ``model``.
    """
    exact = exact or pycolmap.Reconstruction(model)
    pipeline = incremental_options(set(model.cameras), 1, mapper.seed, mapper.threads)
    merge_options(pipeline, pixel_options(mapper.pixel_scale))
    merge_options(pipeline, mapper.options)
    scratch.mkdir(parents=True, exist_ok=True)
    result = pycolmap.triangulate_points(model, database, images, scratch, True, pipeline, False)
    restore_poses(result, exact)  # adjusting the points rounds the poses' last digits
    return result
