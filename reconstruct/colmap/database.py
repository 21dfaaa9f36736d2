"""COLMAP's database: what goes in, its verification, what comes out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from reconstruct.colmap.cameras import CameraAssignment
from reconstruct.colmap.two_view import colmap_geometry, geometry_from_poses
from reconstruct.types import ImagePair, TwoViewGeometry
from reconstruct.workspace import reserve

Matched = tuple[ImagePair, NDArray[np.uint32]]
"""A pair of images and its (M, 2) matches."""

Verified = tuple[ImagePair, NDArray[np.uint32], TwoViewGeometry | None]
"""A pair of images, its (M, 2) matches, and its geometry (None: it has not been verified)."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[pycolmap.Database]:
    """An existing or new database. Raises OSError where it cannot be read or written."""
    try:
        with pycolmap.Database.open(path) as database:
            yield database
    except RuntimeError as error:  # the one kind of error that its SQLite layer has
        raise OSError(f"{path}: COLMAP cannot read or write this database ({error})") from error


def write_database(
    path: Path,
    cameras: CameraAssignment,
    keypoints: Callable[[str], NDArray[np.float32]],
    pairs: Iterable[Matched | Verified],
) -> None:
    """A new COLMAP database with images, keypoints, matches and two-view geometries.

    Args:
        path: where to write it.
        cameras: cameras of the images.
        keypoints: image name -> (N, 2) float32, COLMAP pixels; asked for once an image.
        pairs: pairs of images with (M, 2) uint32 matches, and with their geometry where they were
            verified; read one by one. Pairs without a match are left out.

    Raises:
        OSError: the database cannot be written.
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
        for (first, second), rows, *geometry in pairs:
            if len(rows):
                database.write_matches(ids[first], ids[second], rows)
            if len(rows) and geometry and geometry[0] is not None:
                owners = (cameras.cameras[cameras.camera_ids[name]] for name in (first, second))
                database.write_two_view_geometry(
                    ids[first], ids[second], colmap_geometry(geometry[0], *owners)
                )


def verify_database(path: Path, *, max_error_px: float, min_inliers: int, seed: int) -> None:
    """Robust two-view geometry of every matched pair in the database (LO-RANSAC).

    Raises OSError if the disk has no room for it.
    """
    reserve(path.parent, 2 * path.stat().st_size)  # COLMAP would end the process
    options = pycolmap.TwoViewGeometryOptions()
    options.min_num_inliers = min_inliers
    options.ransac.max_error = max_error_px
    options.ransac.random_seed = seed
    pycolmap.geometric_verification(path, two_view_geometry_options=options)


def verify_with_poses(
    path: Path,
    poses: Mapping[str, NDArray[np.float64]],
    *,
    max_error_px: float,
    min_inliers: int,
) -> None:
    """Keep the matches that agree with known (3, 4) cam_from_world; pairs without poses have none.

    max_error_px: largest distance from an epipolar line, in either image.
    """
    with opened(path) as database:
        cameras = {camera.camera_id: camera for camera in database.read_all_cameras()}
        images = {image.image_id: image for image in database.read_all_images()}
        for pair_id, rows in zip(*database.read_all_matches(), strict=True):
            pair = [images[i] for i in pycolmap.pair_id_to_image_pair(pair_id)]
            if not all(image.name in poses for image in pair):
                continue
            first, second = pair
            geometry = geometry_from_poses(
                cameras[first.camera_id],
                database.read_keypoints(first.image_id)[:, :2],
                cameras[second.camera_id],
                database.read_keypoints(second.image_id)[:, :2],
                rows,
                (poses[first.name], poses[second.name]),
                max_error_px=max_error_px,
                min_inliers=min_inliers,
            )
            if len(geometry.inliers):
                found = colmap_geometry(
                    geometry, cameras[first.camera_id], cameras[second.camera_id]
                )
                database.write_two_view_geometry(first.image_id, second.image_id, found)


def verified_matches(path: Path) -> dict[ImagePair, NDArray[np.uint32]]:
    """Pair of names -> (M, 2) inlier matches, for the pairs that have any, sorted."""
    with opened(path) as database:
        names = {image.image_id: image.name for image in database.read_all_images()}
        pair_ids, geometries = database.read_two_view_geometries()
    result: dict[ImagePair, NDArray[np.uint32]] = {}
    for pair_id, geometry in zip(pair_ids, geometries, strict=True):
        first, second = (names[i] for i in pycolmap.pair_id_to_image_pair(pair_id))
        rows = np.asarray(geometry.inlier_matches, np.uint32).reshape(-1, 2)
        if len(rows):
            pair = (first, second) if first <= second else (second, first)
            result[pair] = rows if pair[0] == first else rows[:, ::-1]
    return dict(sorted(result.items()))


def database_keypoints(path: Path) -> dict[str, NDArray[np.float32]]:
    """Image name -> (N, 2) keypoints."""
    with opened(path) as database:
        images = database.read_all_images()
        return {i.name: database.read_keypoints(i.image_id)[:, :2] for i in images}
