"""Matches of a run: ``matches/part-*.h5``, one record per pair of images."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from reconstruct.storage.shards import Record, ShardStore
from reconstruct.types import ImagePair


def pair_key(pair: ImagePair) -> str:
    """A text key that is unique to the pair, whatever characters the names contain."""
    return json.dumps(pair, ensure_ascii=False)


def key_pair(key: str) -> ImagePair:
    """The pair that `pair_key` made ``key`` from."""
    first, second = json.loads(key)
    return first, second


class MatchStore(ShardStore):
    """Pair of image names -> (M, 2) uint32 keypoint indices, first column for the first image."""

    @staticmethod
    def record(pair: ImagePair, fingerprint: str, matches: NDArray[np.uint32]) -> Record:
        """The stored form of a pair's matches."""
        return Record(pair_key(pair), fingerprint, {"matches": matches})

    def load(self, pair: ImagePair) -> NDArray[np.uint32]:
        """The matches of a pair. Raises ArtifactError if absent or unreadable."""
        matches: NDArray[np.uint32] = self.read(pair_key(pair))["matches"]
        return matches

    def load_from(self, first: str, second: str) -> NDArray[np.uint32]:
        """The matches of two images, with the keypoint of ``first`` first whichever name is
        smaller."""
        if first <= second:
            return self.load((first, second))
        return np.ascontiguousarray(self.load((second, first))[:, ::-1])
