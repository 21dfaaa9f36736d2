"""The RGB-D map of a run: the data set's scans, and what features see of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from reconstruct import colmap
from reconstruct.datasets import cameras
from reconstruct.datasets.rgbd import RgbdImages
from reconstruct.errors import ArtifactError, ConfigError, ImageError
from reconstruct.geometry import Float64
from reconstruct.images import read_image
from reconstruct.indoor.dense_verification import make_cloud
from reconstruct.indoor.rendering import Cloud
from reconstruct.indoor.rgbd import RgbdPoints, sample_xyz
from reconstruct.stages import Context, Plan
from reconstruct.stages.extract import Extract
from reconstruct.storage.hashes import ContentHashes
from reconstruct.types import FloatArray
from reconstruct.workspace import fingerprint

logger = logging.getLogger(__name__)


class RgbdMap:
    """Scans by image name; one that cannot be read is told once, and has no point.

    It is a map for stage Localize, too: it has nothing to do before, as its points are given.
    """

    def __init__(self, context: Context, camera_config: cameras.CamerasConfig) -> None:
        if context.dataset.rgbd is None:
            raise ConfigError("dataset: needs depth or scans, as formats inloc and rgbd bring them")
        self.context = context
        self.camera_config = camera_config
        self.reference = context.dataset.root
        self.images: RgbdImages = context.dataset.rgbd
        self.hashes = ContentHashes(context.workspace.root / "scan_hashes.json")
        self.places = {name: self.images.place(name) for name in self.images.names}
        self._prints: dict[str, Any] = {}
        self._unreadable: set[str] = set()

    def identity(self, names: Sequence[str]) -> list[Any]:
        """JSON-able: what decides the points of ``names``, by content."""
        for name in names:
            if name not in self._prints:
                files = [self.hashes[path] for path in self.images.files(name)]
                self._prints[name] = [name, files, self.images.identity(name)]
        self.hashes.save()
        return [self._prints[name] for name in names]

    def fingerprint(self) -> str:
        """Over all scans."""
        return fingerprint("rgbd", self.identity(self.images.names))

    name = "scans"

    def current(self) -> bool:
        """Always: the scans are given."""
        return True

    def plan(self) -> Plan:
        """Nothing to do."""
        return Plan("done", "given", 0)

    def points(self, extract: Extract) -> tuple[RgbdPoints, dict[str, colmap.Camera]]:
        """The points of the keypoints of the images with features, read when they are asked for;
        and the images' cameras (where they are not given, as COLMAP guesses them)."""
        known = set(self.places)
        names = [name for name in extract.to_map() if name in known]
        sizes = extract.features.image_sizes(names)
        keypoints = extract.features.keypoints

        def load(name: str) -> Float64:
            center = self.images.center(name)
            return sample_xyz(self.xyz(name), center, keypoints(name), sizes[name])

        assigned = cameras.assign(self.camera_config, self.context.dataset, sizes)
        found = {name: assigned.cameras[assigned.camera_ids[name]] for name in names}
        return RgbdPoints(names, keypoints, load), found

    def cloud(self, name: str, edge: int) -> Cloud:
        """The points of an image, thinned to about ``edge`` along its longer edge."""
        xyz = self.xyz(name)
        try:
            photo = read_image(self.context.dataset.path(name))
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
        if name in self._unreadable:
            return
        self._unreadable.add(name)
        self.context.summary.skipped[name] = reason
        logger.warning("no 3D points for %s: %s", name, reason)
        place = self.places[name]
        if all(other in self._unreadable for other, own in self.places.items() if own == place):
            self.context.summary.skipped[place] = "none of its images has 3D points"
