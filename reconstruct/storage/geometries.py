"""Two-view geometries of a run: ``geometries/part-*.h5``, one record a pair of images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from reconstruct.errors import ArtifactError
from reconstruct.geometry import check_pose
from reconstruct.storage.matches import key_pair, pair_key
from reconstruct.storage.shard_file import Record
from reconstruct.storage.shards import ShardStore
from reconstruct.types import ImagePair, TwoViewGeometry

MATRICES = ("F", "E", "H", "cam2_from_cam1")


class GeometryStore(ShardStore):
    """Pair of image names -> `TwoViewGeometry`, also where it has no inlier."""

    @staticmethod
    def record(key: str, fingerprint: str, geometry: TwoViewGeometry) -> Record:
        """The stored form of the geometry of a pair, ``key`` as `pair_key` gives it."""
        config = np.frombuffer(geometry.config.encode("ascii"), np.uint8)
        fields: dict[str, NDArray[np.generic]] = {"inliers": geometry.inliers, "config": config}
        for name in MATRICES:
            matrix = getattr(geometry, name)
            fields[name] = np.zeros((0, *_shape(name))) if matrix is None else matrix[None]
        fields["params"] = np.zeros(0)
        if geometry.params is not None:  # how many the first camera has, then those of both
            first, second = geometry.params
            fields["params"] = np.array([len(first), *first, *second], np.float64)
        return Record(key, fingerprint, fields)

    def load(self, pair: ImagePair) -> TwoViewGeometry:
        """The geometry of a pair. Raises ArtifactError if absent or unreadable."""
        key = pair_key(pair)
        fields = self.read(key)
        with self.decoding(key):
            matrices = {name: _matrix(fields[name], name) for name in MATRICES}
            if matrices["cam2_from_cam1"] is not None:
                check_pose(matrices["cam2_from_cam1"])
            config = fields["config"].tobytes().decode("ascii")
            params = None
            if len(fields["params"]):
                cut = int(fields["params"][0])
                first, second = fields["params"][1 : cut + 1], fields["params"][cut + 1 :]
                params = tuple(first.tolist()), tuple(second.tolist())
            inliers = self._checked(pair, fields["inliers"])
        return TwoViewGeometry(config=config, inliers=inliers, params=params, **matrices)

    def passed(self, keys: Iterable[str]) -> list[ImagePair]:
        """Sorted pairs, among those of ``keys``, of which at least one match is an inlier."""
        counts = self.lengths("inliers")
        return sorted(key_pair(key) for key in keys if counts.get(key, 0))

    def inliers(self, pair: ImagePair) -> NDArray[np.uint32]:
        """(M, 2) inlier matches of a pair. Raises ArtifactError if absent or unreadable."""
        return self._checked(pair, self.read(pair_key(pair), only="inliers")["inliers"])

    def _checked(self, pair: ImagePair, inliers: NDArray[np.uint32]) -> NDArray[np.uint32]:
        if inliers.ndim != 2 or inliers.shape[1] != 2 or inliers.dtype != np.uint32:
            raise ArtifactError(
                f"{self.folder}: the geometry of {pair} is damaged: expected (M, 2) uint32, got "
                f"{inliers.shape} {inliers.dtype}; run again with --force verify"
            )
        return inliers


def _shape(name: str) -> tuple[int, int]:
    return (3, 4) if name == "cam2_from_cam1" else (3, 3)


def _matrix(stored: NDArray[np.float64], name: str) -> NDArray[np.float64] | None:
    """The matrix, None if there is none. Raises ValueError for anything else."""
    if stored.shape[1:] != _shape(name) or len(stored) > 1 or stored.dtype != np.float64:
        raise ValueError(f"{name} of shape {stored.shape} {stored.dtype}")
    return stored[0] if len(stored) else None
