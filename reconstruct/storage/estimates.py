"""Poses of a run's queries: ``localized/part-*.h5``, one record a query, failures too."""

from __future__ import annotations

from typing import get_args

import numpy as np
from numpy.typing import NDArray

from reconstruct.storage.shards import Record, ShardStore
from reconstruct.types import PoseEstimate, PoseStatus


class EstimateStore(ShardStore):
    """Query -> `PoseEstimate`."""

    @staticmethod
    def record(fingerprint: str, found: PoseEstimate) -> Record:
        """The stored form of an estimate."""
        status = get_args(PoseStatus).index(found.status)
        fields = {
            "counts": np.array([[status, found.matches, found.inliers]], np.int64),
            "pose": _or_empty(found.cam_from_world, 4),
            "covariance": _or_empty(found.covariance, 6),
            "params": np.array(found.params, np.float64),
        }
        return Record(found.name, fingerprint, fields)

    def load(self, name: str) -> PoseEstimate:
        """The estimate of a query. Raises ArtifactError if absent or unreadable."""
        fields = self.read(name)
        status, matches, inliers = fields["counts"][0].tolist()
        return PoseEstimate(
            name=name,
            status=get_args(PoseStatus)[status],
            matches=matches,
            inliers=inliers,
            cam_from_world=fields["pose"] if len(fields["pose"]) else None,
            covariance=fields["covariance"] if len(fields["covariance"]) else None,
            params=tuple(fields["params"].tolist()),
        )


def _or_empty(rows: NDArray[np.float64] | None, columns: int) -> NDArray[np.float64]:
    return np.zeros((0, columns)) if rows is None else rows
