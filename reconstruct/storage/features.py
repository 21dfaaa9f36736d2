"""Local features of a run: ``features/part-*.h5``, one record an image, keyed by its name."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np

from reconstruct.storage.shards import Fields, Record, ShardStore
from reconstruct.types import LocalFeatures

FIELDS = ("keypoints", "scales", "scores", "descriptors")
"""The arrays of `LocalFeatures`."""
_ROWLESS: Fields = {
    "keypoints": np.zeros((0, 2), np.float32),
    "scales": np.zeros(0, np.float32),
    "scores": np.zeros(0, np.float32),
    "descriptors": np.zeros((0, 0), np.float32),
}


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

    def load(self, name: str, fields: Collection[str] = FIELDS) -> LocalFeatures:
        """The features of an image. Raises ArtifactError if absent or unreadable.

        fields: those of `LocalFeatures` to read; an array that is not asked for has no rows.
        """
        stored = self.read(name) if set(fields) >= set(FIELDS) else self._some(name, fields)
        width, height = stored.pop("image_size")[0].tolist()
        return LocalFeatures(image_size=(width, height), **{**_ROWLESS, **stored})

    def _some(self, name: str, fields: Collection[str]) -> Fields:
        wanted = sorted({"image_size", *fields})
        return {field: self.read(name, only=field)[field] for field in wanted}


def open_features(output: Path) -> FeatureStore:
    """The features of a finished (or killed) run's output folder."""
    return FeatureStore(output / "features")
