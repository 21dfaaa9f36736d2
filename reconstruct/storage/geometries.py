"""Two-view geometries of a run: ``geometries/part-*.h5``, one record a pair of images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reconstruct.storage.matches import pair_key
from reconstruct.storage.shards import Record, ShardStore
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
            shape = (3, 4) if name == "cam2_from_cam1" else (3, 3)
            fields[name] = np.zeros((0, *shape)) if matrix is None else matrix[None]
        fields["params"] = np.zeros(0)
        if geometry.params is not None:  # how many the first camera has, then those of both
            first, second = geometry.params
            fields["params"] = np.array([len(first), *first, *second], np.float64)
        return Record(key, fingerprint, fields)

    def load(self, pair: ImagePair) -> TwoViewGeometry:
        """The geometry of a pair. Raises ArtifactError if absent or unreadable."""
        fields = self.read(pair_key(pair))
        matrices = {name: fields[name][0] if len(fields[name]) else None for name in MATRICES}
        config = fields["config"].tobytes().decode("ascii")
        params = None
        if len(fields["params"]):
            cut = int(fields["params"][0])
            first, second = fields["params"][1 : cut + 1], fields["params"][cut + 1 :]
            params = tuple(first.tolist()), tuple(second.tolist())
        return TwoViewGeometry(config=config, inliers=fields["inliers"], params=params, **matrices)

    def inliers(self, pair: ImagePair) -> NDArray[np.uint32]:
        """(M, 2) inlier matches of a pair. Raises ArtifactError if absent or unreadable."""
        inliers: NDArray[np.uint32] = self.read(pair_key(pair), only="inliers")["inliers"]
        return inliers
