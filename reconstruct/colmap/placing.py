"""A finished model on another database: its images by name, its tracks on the keypoints there.

Ids of images, cameras and rigs are those of a database, and change with the photos in it. A model
to grow from is therefore rebuilt with the ids of the database; its poses and intrinsics stay exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from reconstruct.colmap.database import image_of, opened
from reconstruct.colmap.models import Reconstruction, model_poses
from reconstruct.errors import EstimationError, UsageError
from reconstruct.similarity import similarity_from_poses

SAME_KEYPOINT_PX = 8.0
"""Refinement moves a keypoint by less than this; a keypoint of another extractor that happens to
have the same number is seldom so near."""


@dataclass(frozen=True, slots=True, eq=False)
class PlacedModel:
    """A model with the ids of a database.

    Attributes:
        model: The model.
        absent: Sorted names of its images that the database lacks.
        kept: Share of the observations of the others whose keypoint is in the database.
    """

    model: Reconstruction
    absent: list[str]
    kept: float


def place_on_database(source: Reconstruction, database: Path) -> PlacedModel:
    """The model with the ids and keypoints of a database.

    Poses and intrinsics are those of ``source``, to the bit. An observation stays if the keypoint
    of its number is in its place, up to what refinement may have moved it; a point stays with two.

    Raises:
        EstimationError: The database has fewer than two of the images.
        UsageError: The database has other cameras for them: another model or size, or one camera
            where ``source`` has several.
    """
    by_name = {source.images[i].name: source.images[i] for i in source.reg_image_ids()}
    model = pycolmap.Reconstruction()
    tracks: dict[int, pycolmap.Track] = {}
    total = 0
    with opened(database) as contents:
        images = [i for i in contents.read_all_images() if i.name in by_name]
        if len(images) < 2:
            raise EstimationError(
                "the photos have fewer than two in common with the model to start from (by name)"
            )
        guessed = {camera.camera_id: camera for camera in contents.read_all_cameras()}
        owners: dict[int, int] = {}
        for image in sorted(images, key=lambda image: int(image.image_id)):
            known = by_name[image.name]
            if owners.setdefault(image.camera_id, known.camera_id) != known.camera_id:
                raise UsageError(_several(image.name))
            if image.camera_id not in model.cameras:
                camera = _camera(source, known, guessed[image.camera_id])
                model.add_camera_with_trivial_rig(camera)
            fresh = image_of(contents, image)
            keypoints = np.array([point.xy for point in fresh.points2D]).reshape(-1, 2)
            pose = known.cam_from_world()
            model.add_image_with_trivial_frame(fresh, pose)
            model.frame(image.image_id).rig_from_world = pose
            total += known.num_points3D
            _observe(tracks, image.image_id, known, keypoints)
    for point_id, track in tracks.items():
        if track.length() >= 2:
            point = source.points3D[point_id]
            seen = pycolmap.Point3D(xyz=point.xyz, color=point.color, track=track)
            model.add_point3D_with_id(point_id, seen)
    absent = sorted(set(by_name) - {image.name for image in images})
    return PlacedModel(model, absent, model.compute_num_observations() / max(total, 1))


def _camera(
    source: Reconstruction, image: pycolmap.Image, guessed: pycolmap.Camera
) -> pycolmap.Camera:
    """The camera of a model's image, with the id that the database has for it."""
    camera = pycolmap.Camera(source.cameras[image.camera_id].todict())
    for what, own, other in (
        ("model", camera.model.name, guessed.model.name),
        ("size", (camera.width, camera.height), (guessed.width, guessed.height)),
    ):
        if own != other:
            raise UsageError(
                f"{image.name}: its camera has {what} {own} in the model to start from, but "
                f"{other} in this run; give dataset.cameras: MODEL, or "
                "dataset.camera_model as in its run"
            )
    camera.camera_id = guessed.camera_id
    return camera


def _several(name: str) -> str:
    return (
        f"{name} shares its camera with other photos in this run, but not in the model to start "
        "from; give dataset.camera_sharing as in the run that made it"
    )


def _observe(
    tracks: dict[int, pycolmap.Track],
    image_id: int,
    known: pycolmap.Image,
    keypoints: NDArray[np.float64],
) -> None:
    """Add the observations of an image whose keypoints are still there to the tracks."""
    indices = [i for i in known.get_observation_point2D_idxs() if i < len(keypoints)]
    points = [known.point2D(index) for index in indices]
    places = np.array([point.xy for point in points]).reshape(-1, 2)
    near = np.linalg.norm(places - keypoints[indices], axis=1) <= SAME_KEYPOINT_PX
    for index, point, same in zip(indices, points, near.tolist(), strict=True):
        if same:
            tracks.setdefault(point.point3D_id, pycolmap.Track()).add_element(image_id, index)


def return_to(model: Reconstruction, before: Reconstruction, *, exactly: bool) -> None:
    """Move a model that has grown, in place, to where it was before.

    Mapping shifts and scales its world as it goes.

    Args:
        model: The model that has grown.
        before: The model from which it grew, images by name.
        exactly: Its old poses were kept fixed: restore them to the bit.
    """
    old, new = model_poses(before), model_poses(model)
    common = sorted(set(old) & set(new))
    scale, rotation, translation = similarity_from_poses(
        np.array([new[name] for name in common]), np.array([old[name] for name in common])
    )
    transform(model, scale, rotation, translation)
    if exactly:
        restore_poses(model, before)


def restore_poses(model: Reconstruction, exact: Reconstruction) -> None:
    """Give images the poses of another model, by name and to the bit, in place."""
    known: Mapping[str, pycolmap.Rigid3d] = {
        exact.images[i].name: exact.images[i].cam_from_world() for i in exact.reg_image_ids()
    }
    for image_id in model.reg_image_ids():
        image = model.images[image_id]
        if image.name in known:
            model.frame(image.frame_id).rig_from_world = known[image.name]


def transform(
    model: Reconstruction,
    scale: float,
    rotation: NDArray[np.float64],
    translation: NDArray[np.float64],
) -> None:
    """Move a model's world, in place: x_new = scale * rotation @ x + translation."""
    model.transform(pycolmap.Sim3d(np.column_stack([scale * rotation, translation])))
