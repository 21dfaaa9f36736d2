"""COLMAP's database: writing it, verifying its matches, reading it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from reconstruct.colmap.cameras import CameraAssignment
from reconstruct.colmap.gps import Prior, pose_prior
from reconstruct.colmap.two_view import colmap_geometry
from reconstruct.errors import ArtifactError
from reconstruct.types import ImagePair, TwoViewGeometry

VerifiedPair = tuple[ImagePair, NDArray[np.uint32], TwoViewGeometry | None]
"""A pair of images, its (M, 2) matches, and its geometry (None: it has not been verified)."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[pycolmap.Database]:
    """Open an existing or new database. Raises OSError if it cannot be read or written."""
    try:
        with pycolmap.Database.open(path) as database:
            yield database
    except RuntimeError as error:  # the one kind of error that its SQLite layer has
        raise OSError(f"{path}: COLMAP cannot read or write this database ({error})") from error


def image_of(contents: pycolmap.Database, image: pycolmap.Image) -> pycolmap.Image:
    """An image of an open database with its keypoints, to be added to a model."""
    return pycolmap.Image(
        name=image.name,
        keypoints=contents.read_keypoints(image.image_id)[:, :2].astype(np.float64),
        camera_id=image.camera_id,
        image_id=image.image_id,
    )


def write_database(
    path: Path,
    cameras: CameraAssignment,
    keypoints: Callable[[str], NDArray[np.float32]],
    pairs: Iterable[VerifiedPair],
    positions: Mapping[str, Prior] | None = None,
) -> None:
    """A new COLMAP database with images, keypoints, matches and two-view geometries.

    Args:
        path: where to write it.
        cameras: cameras of the images.
        keypoints: image name -> (N, 2) float32, COLMAP pixels; asked for once an image.
        pairs: pairs of images with (M, 2) uint32 matches, and with their geometry where they were
            verified; read one by one. Pairs without a match are left out.
        positions: image name -> measured position of its camera, where known.

    Raises:
        OSError: the database cannot be written.
        ArtifactError: a geometry is none that COLMAP knows.
    """
    # No DatabaseTransaction: it ends the process where its last write fails, and saves a tenth
    # of a millisecond a pair.
    with opened(path) as database:
        for camera in cameras.cameras.values():
            database.write_camera(camera, use_camera_id=True)
            rig = pycolmap.Rig(rig_id=camera.camera_id)
            rig.add_ref_sensor(camera.sensor_id)
            database.write_rig(rig, use_rig_id=True)
        ids = {name: i for i, name in enumerate(sorted(cameras.camera_ids), 1)}
        for name, image_id in ids.items():
            camera_id = cameras.camera_ids[name]
            image = pycolmap.Image(name=name, camera_id=camera_id, image_id=image_id)
            database.write_image(image, use_image_id=True)
            frame = pycolmap.Frame(frame_id=image_id, rig_id=camera_id)
            frame.add_data_id(image.data_id)
            database.write_frame(frame, use_frame_id=True)
            database.write_keypoints(image_id, np.ascontiguousarray(keypoints(name), np.float32))
            if positions is not None and name in positions:
                database.write_pose_prior(pose_prior(image, *positions[name]), True)
        for (first, second), matches, geometry in pairs:
            if len(matches):
                database.write_matches(ids[first], ids[second], matches)
            if len(matches) and geometry is not None:
                owners = (cameras.cameras[cameras.camera_ids[name]] for name in (first, second))
                try:
                    written = colmap_geometry(geometry, *owners)
                except (ValueError, RuntimeError) as error:
                    raise ArtifactError(
                        f"the geometry of {(first, second)} is damaged ({str(error)[:200]}); run "
                        "again with --force verify"
                    ) from error
                database.write_two_view_geometry(ids[first], ids[second], written)


def verified_matches(path: Path) -> dict[ImagePair, NDArray[np.uint32]]:
    """Pair of names -> (M, 2) inlier matches, sorted; pairs without inliers are left out."""
    with opened(path) as database:
        names = {image.image_id: image.name for image in database.read_all_images()}
        pair_ids, geometries = database.read_two_view_geometries()
    result: dict[ImagePair, NDArray[np.uint32]] = {}
    for pair_id, geometry in zip(pair_ids, geometries, strict=True):
        first, second = (names[i] for i in pycolmap.pair_id_to_image_pair(pair_id))
        matches = np.asarray(geometry.inlier_matches, np.uint32).reshape(-1, 2)
        if len(matches):
            pair = (first, second) if first <= second else (second, first)
            result[pair] = matches if pair[0] == first else matches[:, ::-1]
    return dict(sorted(result.items()))


def database_keypoints(path: Path) -> dict[str, NDArray[np.float32]]:
    """Image name -> (N, 2) keypoints in COLMAP pixels."""
    with opened(path) as database:
        images = database.read_all_images()
        return {i.name: database.read_keypoints(i.image_id)[:, :2] for i in images}


def verified_counts(path: Path) -> dict[ImagePair, int]:
    """Pair of names, the smaller first -> how many inlier matches it has, for those with any.

    Unlike `verified_matches` it reads no match.
    """
    with opened(path) as database:
        names = {image.image_id: image.name for image in database.read_all_images()}
        pair_ids, counts = database.read_two_view_geometry_num_inliers()
    result: dict[ImagePair, int] = {}
    for pair_id, count in zip(pair_ids, counts, strict=True):
        first, second = sorted(names[i] for i in pycolmap.pair_id_to_image_pair(pair_id))
        if count:
            result[first, second] = int(count)
    return dict(sorted(result.items()))


def database_pairs(
    path: Path, pairs: Iterable[ImagePair]
) -> dict[ImagePair, tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint32]]]:
    """Pair -> (N, 2) keypoints of its first image, of its second, and (M, 2) inlier matches.

    Reads these pairs only. Raises KeyError for an image that is not in the database.
    """
    result = {}
    with opened(path) as database:
        ids = {image.name: image.image_id for image in database.read_all_images()}
        for first, second in pairs:
            found = database.read_two_view_geometry(ids[first], ids[second])
            rows = np.asarray(found.inlier_matches, np.uint32).reshape(-1, 2)
            points = [database.read_keypoints(ids[name])[:, :2] for name in (first, second)]
            result[first, second] = (points[0], points[1], rows)
    return result


def database_cameras(path: Path) -> dict[str, pycolmap.Camera]:
    """Image name -> its camera as it was before mapping."""
    with opened(path) as database:
        cameras = {camera.camera_id: camera for camera in database.read_all_cameras()}
        return {i.name: cameras[i.camera_id] for i in database.read_all_images()}


def database_keypoint_counts(path: Path) -> dict[str, int]:
    """Image name -> how many keypoints it has; reads none of them."""
    with opened(path) as database:
        images = database.read_all_images()
        return {i.name: int(database.num_keypoints_for_image(i.image_id)) for i in images}
