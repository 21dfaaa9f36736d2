"""A COLMAP model as numpy arrays: for figures and pictures of all of it at once."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from reconstruct.colmap.cameras import Camera
from reconstruct.colmap.estimation import project
from reconstruct.colmap.models import Reconstruction


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelArrays:
    """I registered images, P points, O observations.

    names: (I,) sorted. cameras: (I,) of each image; images that share a camera hold the same one.
    poses: (I, 3, 4) cam_from_world. xyz: (P, 3), sorted by id. colors: (P, 3) uint8 RGB.
    image, keypoint, point: (O,) which image sees which point, and the index of its keypoint, sorted
    by image, then keypoint. xy: (O, 2) the keypoint in COLMAP pixels.
    """

    names: tuple[str, ...]
    cameras: tuple[Camera, ...]
    poses: NDArray[np.float64]
    xyz: NDArray[np.float64]
    colors: NDArray[np.uint8]
    image: NDArray[np.int64]
    keypoint: NDArray[np.int64]
    point: NDArray[np.int64]
    xy: NDArray[np.float64]

    @property
    def centers(self) -> NDArray[np.float64]:
        """(I, 3) projection centres in the world."""
        rotation, translation = self.poses[:, :, :3], self.poses[:, :, 3]
        return np.asarray(-np.einsum("iba,ib->ia", rotation, translation), np.float64)

    def projections(self) -> NDArray[np.float64]:
        """(O, 2) COLMAP pixels where the model sees the point of each observation."""
        result = np.full((len(self.image), 2), np.nan)
        views = zip(self.cameras, self.poses, self.slices(), strict=True)
        for camera, pose, own in views:
            result[own] = project(camera, pose, self.xyz[self.point[own]])
        return result

    def slices(self) -> list[slice]:
        """(I,) where the observations of each image stand."""
        ends = np.searchsorted(self.image, np.arange(len(self.names) + 1)).tolist()
        return [slice(first, last) for first, last in pairwise(ends)]


def model_arrays(model: Reconstruction) -> ModelArrays:
    """The registered images, the points and the observations of a model."""
    images = sorted((model.images[i] for i in model.reg_image_ids()), key=lambda i: str(i.name))
    ids = np.array(sorted(model.points3D), np.int64)
    points = [model.points3D[int(i)] for i in ids]
    rows: list[tuple[int, int, int]] = []
    places: list[NDArray[np.float64]] = []
    for number, image in enumerate(images):
        for index in image.get_observation_point2D_idxs():
            seen = image.point2D(index)
            rows.append((number, index, seen.point3D_id))
            places.append(seen.xy)
    table = np.array(rows, np.int64).reshape(-1, 3)
    poses = [image.cam_from_world().matrix() for image in images]
    return ModelArrays(
        names=tuple(str(image.name) for image in images),
        cameras=tuple(model.cameras[image.camera_id] for image in images),
        poses=np.array(poses, np.float64).reshape(-1, 3, 4),
        xyz=np.array([p.xyz for p in points], np.float64).reshape(-1, 3),
        colors=np.array([p.color for p in points], np.uint8).reshape(-1, 3),
        image=table[:, 0],
        keypoint=table[:, 1],
        point=np.searchsorted(ids, table[:, 2]),
        xy=np.array(places, np.float64).reshape(-1, 2),
    )
