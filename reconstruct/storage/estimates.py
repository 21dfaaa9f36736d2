"""Poses of a run's queries: ``localized/part-*.h5``, one record per query, including failures."""

from __future__ import annotations

from typing import get_args

import numpy as np
from numpy.typing import NDArray

from reconstruct.geometry import check_pose
from reconstruct.storage.shard_file import Record
from reconstruct.storage.shards import ShardStore
from reconstruct.types import PoseEstimate, PoseStatus


class EstimateStore(ShardStore):
    """Query -> `PoseEstimate`."""

    @staticmethod
    def record(fingerprint: str, estimate: PoseEstimate) -> Record:
        """The stored form of an estimate."""
        status = get_args(PoseStatus).index(estimate.status)
        fields = {
            "counts": np.array([[status, estimate.matches, estimate.inliers]], np.int64),
            "pose": _or_empty(estimate.cam_from_world, 4),
            "covariance": _or_empty(estimate.covariance, 6),
            "params": np.array(estimate.params, np.float64),
        }
        return Record(estimate.name, fingerprint, fields)

    def load(self, name: str) -> PoseEstimate:
        """The estimate of a query. Raises ArtifactError if absent or unreadable."""
        fields = self.read(name)
        with self.decoding(name):
            status, matches, inliers = fields["counts"][0].tolist()
            pose = _or_none(fields["pose"], (3, 4))
            if pose is not None:
                check_pose(pose)
            return PoseEstimate(
                name=name,
                status=get_args(PoseStatus)[status],
                matches=matches,
                inliers=inliers,
                cam_from_world=pose,
                covariance=_or_none(fields["covariance"], (6, 6)),
                params=tuple(fields["params"].tolist()),
            )


def _or_none(stored: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64] | None:
    if not len(stored):
        return None
    if stored.shape != shape:
        raise ValueError(f"shape {stored.shape}, expected {shape}")
    return stored


def _or_empty(values: NDArray[np.float64] | None, columns: int) -> NDArray[np.float64]:
    return np.zeros((0, columns)) if values is None else values
