"""Local features of a run: ``features/part-*.h5``, one record per image, keyed by its name."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reconstruct.errors import ArtifactError
from reconstruct.storage.shard_file import Fields, Record
from reconstruct.storage.shards import ShardStore
from reconstruct.types import LocalFeatures

FIELDS = ("keypoints", "scales", "scores", "descriptors")
"""The arrays of `LocalFeatures`."""
_DESCRIPTORS = ("float32", "float16", "uint8")
"""Types that `features.compaction.expand` knows; of the other arrays any real numbers will do."""
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
        if features.kinds is not None:
            fields["kinds"] = features.kinds
        return Record(name, fingerprint, fields)

    def load(self, name: str, fields: Collection[str] = FIELDS) -> LocalFeatures:
        """The features of an image. Raises ArtifactError if absent or unreadable.

        fields: those of `LocalFeatures` to read; an array that is not asked for has no rows.
        """
        stored = self.read(name) if set(fields) >= set(FIELDS) else self._some(name, fields)
        self._check(name, stored)
        with self.decoding(name):
            width, height = stored.pop("image_size")[0].tolist()
            return LocalFeatures(image_size=(width, height), **{**_ROWLESS, **stored})

    def _some(self, name: str, fields: Collection[str]) -> Fields:
        absent = {"kinds"} - set(self.fields(name))
        wanted = sorted({"image_size", *fields} - absent)
        return {field: self.read(name, only=field)[field] for field in wanted}

    def keypoints(self, name: str) -> NDArray[np.float32]:
        """(N, 2) keypoints of an image in COLMAP pixels. Raises ArtifactError."""
        stored = self.read(name, only="keypoints")
        self._check(name, stored)
        return stored["keypoints"]

    def _check(self, name: str, stored: Fields) -> None:
        """Raises ArtifactError for arrays of other shapes and types than `record` wrote."""
        found = {field: stored[field] for field in (*FIELDS, "kinds") if field in stored}
        alike = len({len(values) for values in found.values()}) <= 1
        types = all(
            values.dtype.name in _DESCRIPTORS
            if field == "descriptors"
            else values.dtype.kind in "fiu"
            for field, values in found.items()
        )
        keypoints = found.get("keypoints", np.zeros((0, 2)))
        if not (alike and types and keypoints.shape[1:] == (2,) and np.isfinite(keypoints).all()):
            shapes = {field: f"{values.shape} {values.dtype}" for field, values in found.items()}
            raise ArtifactError(
                f"{self.folder}: the features of {name!r} are damaged: expected (N, 2) finite "
                f"keypoints and N rows of numbers beside them, got {shapes}; "
                "run again with --force extract"
            )

    def image_size(self, name: str) -> tuple[int, int]:
        """(width, height) of an image in pixels. Raises ArtifactError."""
        stored = self.read(name, only="image_size")
        with self.decoding(name):
            width, height = stored["image_size"][0].tolist()
            return width, height

    def image_sizes(self, names: Iterable[str]) -> dict[str, tuple[int, int]]:
        """(width, height) of several images. Raises ArtifactError."""
        column = self.column("image_size", names)
        found = {}
        for name, size in column.items():
            with self.decoding(name):
                found[name] = (int(size[0][0]), int(size[0][1]))
        return found

    @property
    def names(self) -> list[str]:
        """Sorted names of the images with features."""
        return sorted(self.fingerprints())


def open_features(output: Path | str) -> FeatureStore:
    """The features of a finished (or killed) run's output folder."""
    return FeatureStore(Path(output) / "features")
