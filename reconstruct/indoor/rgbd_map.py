"""The RGB-D map of a run: the data set's scans, and what features see of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reconstruct.datasets import cameras
from reconstruct.errors import ConfigError
from reconstruct.fingerprints import fingerprint
from reconstruct.indoor.scans import ScanLoader, Scans
from reconstruct.stages import Context, Plan
from reconstruct.stages.extract import Extract
from reconstruct.storage.hashes import ContentHashes


class RgbdMap:
    """A map for stage Localize that needs no mapping, as its points are given."""

    name = "scans"

    def __init__(self, context: Context, camera_config: cameras.CamerasConfig) -> None:
        if context.dataset.rgbd is None:
            raise ConfigError("dataset: needs depth or scans, as formats inloc and rgbd bring them")
        self.context = context
        self.camera_config = camera_config
        self.reference = context.dataset.root
        self.scans = Scans(context.dataset.rgbd, context.dataset.root)
        self.hashes = ContentHashes(context.workspace.root / "scan_hashes.json")
        self._prints: dict[str, Any] = {}

    def identity(self, names: Sequence[str]) -> list[Any]:
        """JSON-able: what decides the points of ``names``, by content."""
        images = self.scans.images
        for name in names:
            if name not in self._prints:
                files = [self.hashes[path] for path in images.files(name)]
                self._prints[name] = [name, files, images.identity(name)]
        self.hashes.save()
        return [self._prints[name] for name in names]

    def fingerprint(self) -> str:
        """Over all scans."""
        return fingerprint("rgbd", self.identity(self.scans.images.names))

    def current(self) -> bool:
        """Always: the scans are given."""
        return True

    def plan(self) -> Plan:
        """Nothing to do."""
        return Plan("done", "given", 0)

    def loader(self, extract: Extract) -> ScanLoader:
        """Loads the points of the keypoints of the images with features, and the images' cameras
        (where they are not given, as COLMAP guesses them)."""
        names = [name for name in extract.to_map() if name in self.scans.places]
        sizes = extract.features.image_sizes(names)
        assigned = cameras.assign(self.camera_config, self.context.dataset, sizes)
        found = {name: assigned.cameras[assigned.camera_ids[name]] for name in names}
        return ScanLoader(self.scans, extract.features, names, found)
