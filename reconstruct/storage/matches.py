"""Matches of a run: ``matches/part-*.h5``, one record per pair of images."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reconstruct.errors import ArtifactError
from reconstruct.files import parse_json
from reconstruct.storage.shard_file import Record
from reconstruct.storage.shards import ShardStore
from reconstruct.types import ImagePair, Matches


def pair_key(pair: ImagePair) -> str:
    """A text key that is unique to the pair, whatever characters the names contain."""
    return json.dumps(pair, ensure_ascii=False)


def pair_keys(pairs: Iterable[ImagePair]) -> Iterator[str]:
    """`pair_key` of many pairs, quicker: each name is made text once."""
    texts: dict[str, str] = {}
    for pair in pairs:
        for name in pair:
            if name not in texts:
                texts[name] = json.dumps(name, ensure_ascii=False)
        yield f"[{texts[pair[0]]}, {texts[pair[1]]}]"


def key_pair(key: str) -> ImagePair:
    """The pair that `pair_key` made ``key`` from. Raises ArtifactError for any other text."""
    try:
        first, second = parse_json(key)
    except (ValueError, TypeError) as error:
        raise ArtifactError(
            f"{key[:100]!r} is not the key of a pair: what is stored of pairs was edited; run "
            "again with --force match"
        ) from error
    return first, second


class MatchStore(ShardStore):
    """Pair of image names -> (M, 2) uint32 keypoint indices, first column for the first image."""

    @staticmethod
    def record(pair: ImagePair, fingerprint: str, matches: Matches) -> Record:
        """The stored form of a pair's matches."""
        fields = {"matches": matches.indices, "scores": matches.scores}
        return Record(pair_key(pair), fingerprint, fields)

    def load(self, pair: ImagePair) -> NDArray[np.uint32]:
        """The matches of a pair. Raises ArtifactError if absent or unreadable."""
        matches: NDArray[np.uint32] = self.read(pair_key(pair), only="matches")["matches"]
        if matches.ndim != 2 or matches.shape[1] != 2 or matches.dtype != np.uint32:
            raise ArtifactError(
                f"{self.folder}: the matches of {pair} are damaged: expected (M, 2) uint32, got "
                f"{matches.shape} {matches.dtype}; run again with --force match"
            )
        return matches

    def scores(self, pair: ImagePair) -> NDArray[np.float32]:
        """(M,) score of each match of a pair. Raises ArtifactError if absent or unreadable.

        Matches made before scores were kept have none: match the pair again.
        """
        key = pair_key(pair)
        scores: NDArray[np.float32] = self.read(key, only="scores")["scores"]
        if scores.shape != (self.lengths("matches")[key],) or scores.dtype.kind not in "fiu":
            raise ArtifactError(
                f"{self.folder}: the scores of {pair} are damaged: expected (M,) numbers, got "
                f"{scores.shape} {scores.dtype}; run again with --force match"
            )
        return scores

    def load_from(self, first: str, second: str) -> NDArray[np.uint32]:
        """The matches of two images, with the keypoint of ``first`` first whichever name is
        smaller."""
        if first <= second:
            return self.load((first, second))
        return np.ascontiguousarray(self.load((second, first))[:, ::-1])


def open_matches(output: Path | str) -> MatchStore:
    """The matches of a finished (or killed) run's output folder."""
    return MatchStore(Path(output) / "matches")
