"""An RGB-D map: images with a 3D point for each pixel, as a map that queries are localized in."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from reconstruct.geometry import Float64, rescale_points
from reconstruct.types import FloatArray

EDGE_RATIO = 0.03
"""Points of neighbouring pixels belong to one surface if they lie no farther apart than this share
of their distance from the camera: with pixels of 1/600 radian a plane may be seen at up to 87
degrees, and surfaces 3 cm behind each other at 1 m are told apart."""

_IMAGE_BITS = 32
"""A point's id is its image's number, shifted by so many bits, plus its keypoint's."""


def sample_xyz(
    xyz: FloatArray,
    center: NDArray[np.floating],
    keypoints: NDArray[np.floating],
    image_size: tuple[int, int],
) -> Float64:
    """(N, 3) points at keypoints, NaN where there is none.

    xyz: (H, W, 3) points of the pixels' centres, NaN where nothing was measured; the grid covers
    an image of ``image_size`` (width, height), in whose COLMAP pixels ``keypoints`` (N, 2) are.
    center: (3,) of the camera.

    Bilinear where the four pixels around a keypoint lie on one surface (`EDGE_RATIO`). At a depth
    edge, or where one of the four is missing, the point of the pixel that holds the keypoint:
    half a pixel off at most, and never between two surfaces. No point where that one is missing.
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
    own = xyz[nearest[:, 1], nearest[:, 0]].astype(np.float64)
    spread = np.linalg.norm(corners - own[:, None, None], axis=3).max(axis=(1, 2))
    # NaN compares as false: a missing corner leaves the pixel's own point.
    smooth = spread <= EDGE_RATIO * np.linalg.norm(own - center, axis=1)
    found = np.where(smooth[:, None], mixed, own)
    outside = ((inside < 0) | (inside > [width, height])).any(axis=1)
    found[outside] = np.nan
    return found


class RgbdPoints:
    """The 3D points of an RGB-D map's keypoints, as `reconstruct.colmap.Tracks` has those of SfM.

    names: of the images, sorted. keypoints: image -> (N, 2) COLMAP pixels. points: image -> (N, 3)
    of its keypoints, NaN where there is none.
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
        """(N,) id of the point of each keypoint of an image, -1 where it has none."""
        xyz = self._xyz(name)
        ids = np.arange(len(xyz), dtype=np.int64) + (self._number[name] << _IMAGE_BITS)
        return np.where(np.isfinite(xyz).all(axis=1), ids, -1)

    def image_numbers(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """(N,) positions in `names` of the images that points by their ids belong to."""
        return ids >> _IMAGE_BITS

    def positions(self, ids: NDArray[np.int64]) -> Float64:
        """(N, 3) positions of points by their ids."""
        images, keypoints = self.image_numbers(ids), ids & ((1 << _IMAGE_BITS) - 1)
        found = np.empty((len(ids), 3))
        for number in np.unique(images):
            rows = images == number
            found[rows] = self._xyz(self._names[int(number)])[keypoints[rows]]
        return found

    def projected(self, name: str) -> Float64:
        """(N, 2) COLMAP pixels where an image sees the point of each keypoint, NaN for none: the
        keypoint itself, as its point was measured there."""
        seen = self.points(name)[:, None] >= 0
        return np.where(seen, self._keypoints(name).astype(np.float64), np.nan)

    def _xyz(self, name: str) -> Float64:
        if name not in self._points:
            self._points[name] = self._load(name)
        return self._points[name]
