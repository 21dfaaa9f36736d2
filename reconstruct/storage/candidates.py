"""Candidate poses of queries: ``candidates/part-*.h5``, one record per query, also without
poses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reconstruct.files import parse_json
from reconstruct.geometry import Float64, check_pose
from reconstruct.storage.shard_file import Fields, Record
from reconstruct.storage.shards import ShardStore
from reconstruct.types import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CandidatePoses:
    """The K candidate poses of one query, the one with most inliers first.

    Attributes:
        poses: (K, 3, 4).
        inliers: Of each pose.
        matches: Of each pose.
        places: Of each pose, see `reconstruct.datasets.rgbd.RgbdImages.place`.
        images: Of each pose, the image with most inliers.
        most_matches: Largest number of keypoints with a 3D point in one attempt, even if no pose
            resulted.
        seconds: Time that the query took.
    """

    poses: Float64
    inliers: tuple[int, ...]
    matches: tuple[int, ...]
    places: tuple[str, ...]
    images: tuple[str, ...]
    most_matches: int
    seconds: float


class CandidateStore(ShardStore):
    """Query -> `CandidatePoses`."""

    @staticmethod
    def record(name: str, fingerprint: str, candidates: CandidatePoses) -> Record:
        """The stored form."""
        told = {key: getattr(candidates, key) for key in ("inliers", "matches", "places", "images")}
        text = json.dumps(told | {"most_matches": candidates.most_matches}, ensure_ascii=False)
        fields: Fields = {
            "poses": np.asarray(candidates.poses, np.float64).reshape(-1, 3, 4),
            "told": np.frombuffer(text.encode("utf-8"), np.uint8),
            "seconds": np.array([candidates.seconds]),
        }
        return Record(name, fingerprint, fields)

    def load(self, name: str) -> CandidatePoses:
        """The candidates of a query. Raises ArtifactError if absent or unreadable."""
        fields = self.read(name)
        with self.decoding(name):
            told = parse_json(fields["told"].tobytes())
            columns = {key: tuple(told[key]) for key in ("inliers", "matches", "places", "images")}
            shapes = {(len(column), 3, 4) for column in columns.values()}
            if shapes != {fields["poses"].shape}:
                raise ValueError(f"{fields['poses'].shape} poses")
            for pose in fields["poses"]:
                check_pose(pose)
            return CandidatePoses(
                poses=fields["poses"],
                most_matches=int(told["most_matches"]),
                seconds=float(fields["seconds"][0]),
                **columns,
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scores:
    """Scores of the K candidates of one query; smaller is better, infinite means that it cannot be
    judged."""

    values: FloatArray
    seconds: float


class ScoreStore(ShardStore):
    """Query -> `Scores`."""

    @staticmethod
    def record(name: str, fingerprint: str, values: Sequence[float], seconds: float) -> Record:
        """The stored form."""
        fields = {"scores": np.array(values, np.float32), "seconds": np.array([seconds])}
        return Record(name, fingerprint, fields)

    def load(self, name: str) -> Scores:
        """The scores of a query's candidates. Raises ArtifactError if absent or unreadable."""
        fields = self.read(name)
        with self.decoding(name):
            if fields["scores"].ndim != 1:
                raise ValueError(f"scores of shape {fields['scores'].shape}")
            return Scores(values=fields["scores"], seconds=float(fields["seconds"][0]))
