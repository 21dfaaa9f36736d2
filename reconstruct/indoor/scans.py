"""The RGB-D images of a map: their points, for keypoints and for rendering."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reconstruct import colmap
from reconstruct.datasets.rgbd import RgbdImages
from reconstruct.errors import ArtifactError, ImageError
from reconstruct.geometry import Float64
from reconstruct.images import read_image
from reconstruct.indoor.dense_verification import make_cloud
from reconstruct.indoor.rendering import Cloud
from reconstruct.indoor.rgbd import RgbdPoints, sample_xyz
from reconstruct.storage.features import FeatureStore
from reconstruct.types import FloatArray

logger = logging.getLogger(__name__)


class Scans:
    """Scans by image name; one that cannot be read is reported once, and has no points.

    Args:
        images: The images with a 3D point for each pixel.
        photos: Folder that their names are relative to.

    Attributes:
        places: Image -> the place that was scanned together with it.
        unreadable: Image (or place, if it has no other) -> why it has no points.
    """

    def __init__(self, images: RgbdImages, photos: Path) -> None:
        self.images = images
        self.photos = photos
        self.places = {name: images.place(name) for name in images.names}
        self.unreadable: dict[str, str] = {}

    def points(self, names: Sequence[str], features: FeatureStore) -> RgbdPoints:
        """The points of the keypoints of images, read when they are asked for."""
        sizes = features.image_sizes(names)

        def load(name: str) -> Float64:
            center = self.images.center(name)
            return sample_xyz(self.xyz(name), center, features.keypoints(name), sizes[name])

        return RgbdPoints(names, features.keypoints, load)

    def cloud(self, name: str, edge: int) -> Cloud:
        """The points of an image, thinned to about ``edge`` along its longer edge."""
        xyz = self.xyz(name)
        try:
            photo = read_image(self.photos / name)
        except ImageError as error:
            self._tell(name, str(error))
            xyz, photo = np.full((1, 1, 3), np.nan, np.float32), np.zeros((1, 1, 3), np.uint8)
        return make_cloud(xyz, photo, edge)

    def xyz(self, name: str) -> FloatArray:
        """(H, W, 3) world points; a single NaN where the scan cannot be read."""
        try:
            return self.images.xyz(name)
        except (ImageError, ArtifactError) as error:
            self._tell(name, str(error))
            return np.full((1, 1, 3), np.nan, np.float32)

    def _tell(self, name: str, reason: str) -> None:
        if name in self.unreadable:
            return
        self.unreadable[name] = reason
        logger.warning("no 3D points for %s: %s", name, reason)
        place = self.places[name]
        if all(other in self.unreadable for other, own in self.places.items() if own == place):
            self.unreadable[place] = "none of its images has 3D points"


@dataclass(frozen=True, slots=True, eq=False)
class ScanLoader:
    """The points of a map's images with features, and their cameras.

    Args:
        scans: The scans.
        features: The features.
        names: The images.
        cameras: Their cameras by name.
    """

    scans: Scans
    features: FeatureStore
    names: Sequence[str]
    cameras: dict[str, colmap.Camera]

    def __call__(self) -> tuple[RgbdPoints, dict[str, colmap.Camera]]:
        """Points, read when they are asked for, and cameras."""
        return self.scans.points(self.names, self.features), self.cameras

    @property
    def unreadable(self) -> dict[str, str]:
        """Image -> why it has no points, of those asked for so far."""
        return self.scans.unreadable
