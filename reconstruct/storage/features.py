"""Local features of a run: ``features/part-*.h5``, one record an image, keyed by its name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reconstruct.storage.shards import Record, ShardStore
from reconstruct.types import LocalFeatures


class FeatureStore(ShardStore):
    """Image name -> `LocalFeatures`."""

    @staticmethod
    def record(name: str, fingerprint: str, features: LocalFeatures) -> Record:
        """The stored form of an image's features."""
        fields = {
            "keypoints": features.keypoints,
            "scales": features.scales,
            "scores": features.scores,
            "descriptors": features.descriptors,
            "image_size": np.asarray([features.image_size], np.int32),
        }
        return Record(name, fingerprint, fields)

    def load(self, name: str) -> LocalFeatures:
        """The features of an image. Raises ArtifactError if absent or unreadable."""
        fields = self.read(name)
        width, height = fields["image_size"][0].tolist()
        return LocalFeatures(
            keypoints=fields["keypoints"],
            scales=fields["scales"],
            scores=fields["scores"],
            descriptors=fields["descriptors"],
            image_size=(width, height),
        )

    def keypoints(self, name: str) -> NDArray[np.float32]:
        """(N, 2) keypoints of an image in COLMAP pixels. Raises ArtifactError."""
        keypoints: NDArray[np.float32] = self.read(name, only="keypoints")["keypoints"]
        return keypoints

    def image_size(self, name: str) -> tuple[int, int]:
        """(width, height) of an image in pixels. Raises ArtifactError."""
        width, height = self.read(name, only="image_size")["image_size"][0].tolist()
        return width, height

    def image_sizes(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """(width, height) of several images. Raises ArtifactError."""
        column = self.column("image_size", names)
        return {name: (int(size[0][0]), int(size[0][1])) for name, size in column.items()}

    @property
    def names(self) -> list[str]:
        """Sorted names of the images with features."""
        return sorted(self.fingerprints())


def open_features(output: Path | str) -> FeatureStore:
    """The features of a finished (or killed) run's output folder."""
    return FeatureStore(Path(output) / "features")
