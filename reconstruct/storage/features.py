"""Local features of a run: ``features/part-*.h5``, one record per image, keyed by its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np

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


def open_features(output: Path) -> FeatureStore:
    """The features in a run's output folder, whether the run is finished or was killed."""
    return FeatureStore(output / "features")
