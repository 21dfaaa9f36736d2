"""An RGB-D map: images with a 3D point for each pixel, as a map that queries are localized in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from reconstruct.geometry import Float64, rescale_points
from reconstruct.types import FloatArray

EDGE_RATIO = 0.03
"""Points of neighbouring pixels are on one surface if their distance is at most this share of their
distance from the camera: with pixels of 1/600 radian a plane may be seen at up to 87 degrees, and
surfaces 3 cm behind each other at 1 m are separated."""

_IMAGE_BITS = 32
"""The id of a point is the number of its image, shifted by this many bits, plus that of its
keypoint."""


def sample_xyz(
    xyz: FloatArray,
    center: NDArray[np.floating],
    keypoints: NDArray[np.floating],
    image_size: tuple[int, int],
) -> Float64:
    """3D points at keypoints.

    Bilinear where the four pixels around a keypoint are on one surface (`EDGE_RATIO`). At a depth
    edge, or if one of the four is missing, the point of the pixel that contains the keypoint: off
    by half a pixel at most, and never between two surfaces. No point if that pixel has none.

    Args:
        xyz: (H, W, 3) points at the pixel centres, NaN where nothing was measured.
        center: (3,) position of the camera.
        keypoints: (N, 2) COLMAP pixels of the image.
        image_size: (width, height) of the image, which the grid ``xyz`` covers.

    Returns:
        (N, 3) points, NaN where there is none.
    """
    height, width = xyz.shape[:2]
    inside = rescale_points(keypoints, image_size, (width, height)).reshape(-1, 2)
    # The centre of the first pixel is at (0.5, 0.5): - 0.5 makes it index 0.
    index = (inside - 0.5).clip(0, np.array([width - 1, height - 1]))
    low = np.minimum(index.astype(np.int64), np.maximum([width - 2, height - 2], 0))
    share = index - low
    columns = np.stack([low[:, 0], np.minimum(low[:, 0] + 1, width - 1)], axis=1)
    rows = np.stack([low[:, 1], np.minimum(low[:, 1] + 1, height - 1)], axis=1)
    corners = xyz[rows[:, :, None], columns[:, None, :]].astype(np.float64)  # (N, 2, 2, 3)
    across = np.stack([1 - share[:, 0], share[:, 0]], axis=1)
    down = np.stack([1 - share[:, 1], share[:, 1]], axis=1)
    mixed = np.einsum("nij,nijk->nk", down[:, :, None] * across[:, None, :], corners)
    nearest = np.floor(inside).clip(0, [width - 1, height - 1]).astype(np.int64)
    at_pixel = xyz[nearest[:, 1], nearest[:, 0]].astype(np.float64)
    spread = np.linalg.norm(corners - at_pixel[:, None, None], axis=3).max(axis=(1, 2))
    # NaN compares as false: where a corner is missing, the point of the pixel itself is taken.
    smooth = spread <= EDGE_RATIO * np.linalg.norm(at_pixel - center, axis=1)
    sampled = np.where(smooth[:, None], mixed, at_pixel)
    outside = ((inside < 0) | (inside > [width, height])).any(axis=1)
    sampled[outside] = np.nan
    return sampled


class RgbdPoints:
    """The 3D points of an RGB-D map's keypoints: what `reconstruct.colmap.Tracks` is for a model.

    Args:
        names: Sorted names of the images.
        keypoints: Image -> (N, 2) COLMAP pixels.
        points: Image -> (N, 3) points of its keypoints, NaN where there is none.
    """

    def __init__(
        self,
        names: Sequence[str],
        keypoints: Callable[[str], FloatArray],
        points: Callable[[str], Float64],
    ) -> None:
        self._number = {name: i for i, name in enumerate(sorted(names))}
        self._names = sorted(names)
        self._keypoints, self._load = keypoints, points
        self._points: dict[str, Float64] = {}

    @property
    def names(self) -> list[str]:
        """Sorted names of the images."""
        return list(self._names)

    def points(self, name: str) -> NDArray[np.int64]:
        """(N,) ids of the points of an image's keypoints, -1 for a keypoint without a point."""
        xyz = self._xyz(name)
        ids = np.arange(len(xyz), dtype=np.int64) + (self._number[name] << _IMAGE_BITS)
        return np.where(np.isfinite(xyz).all(axis=1), ids, -1)

    def image_numbers(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """(N,) index into `names` of the image that each point belongs to, by the points' ids."""
        return ids >> _IMAGE_BITS

    def positions(self, ids: NDArray[np.int64]) -> Float64:
        """(N, 3) positions of the points with these ids."""
        images, keypoints = self.image_numbers(ids), ids & ((1 << _IMAGE_BITS) - 1)
        xyz = np.empty((len(ids), 3))
        for number in np.unique(images):
            seen = images == number
            xyz[seen] = self._xyz(self._names[int(number)])[keypoints[seen]]
        return xyz

    def projected(self, name: str) -> Float64:
        """(N, 2) the keypoints themselves, as their points were measured there; NaN without a
        point."""
        seen = self.points(name)[:, None] >= 0
        return np.where(seen, self._keypoints(name).astype(np.float64), np.nan)

    def _xyz(self, name: str) -> Float64:
        if name not in self._points:
            self._points[name] = self._load(name)
        return self._points[name]
