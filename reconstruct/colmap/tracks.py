"""The 3D points that the keypoints of a model observe."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reconstruct.colmap.estimation import project
from reconstruct.colmap.models import Reconstruction


class Tracks:
    """The 3D points that the keypoints of a model's images observe."""

    def __init__(self, model: Reconstruction) -> None:
        self._model = model
        self._images = {model.images[i].name: model.images[i] for i in model.reg_image_ids()}
        self._ids: dict[str, NDArray[np.int64]] = {}

    @property
    def names(self) -> list[str]:
        """Sorted names of the registered images."""
        return sorted(self._images)

    def points(self, name: str) -> NDArray[np.int64]:
        """(N,) ids of the 3D points of an image's keypoints, -1 for a keypoint without a point."""
        if name not in self._ids:
            image = self._images[name]
            ids = np.full(image.num_points2D(), -1, np.int64)
            for index in image.get_observation_point2D_idxs():
                ids[index] = image.point2D(index).point3D_id
            self._ids[name] = ids
        return self._ids[name]

    def keypoints(self, name: str) -> NDArray[np.float64]:
        """(N, 2) keypoints of an image as they are in the model, in COLMAP pixels."""
        image = self._images[name]
        rows = [image.point2D(index).xy for index in range(image.num_points2D())]
        return np.array(rows, np.float64).reshape(-1, 2)

    def positions(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """(N, 3) positions of the points with these ids."""
        rows = [self._model.points3D[int(i)].xyz for i in ids]
        return np.array(rows, np.float64).reshape(-1, 3)

    def projected(self, name: str) -> NDArray[np.float64]:
        """(N, 2) COLMAP pixels at which the model sees the 3D point of each keypoint, NaN without a
        point.

        More accurate than the keypoint itself: all observations of the point agree on it.
        """
        ids, image = self.points(name), self._images[name]
        pixels = np.full((len(ids), 2), np.nan)
        pose = image.cam_from_world().matrix()
        points = self.positions(ids[ids >= 0])
        pixels[ids >= 0] = project(self._model.cameras[image.camera_id], pose, points)
        return pixels
