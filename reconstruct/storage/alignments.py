"""Alignments of a run's verified matches: ``alignments/part-*.h5``, one record a pair of images."""

from __future__ import annotations

from dataclasses import fields

from reconstruct.refinement.pairs import PairAlignment
from reconstruct.storage.matches import pair_key
from reconstruct.storage.shards import Record, ShardStore
from reconstruct.types import ImagePair


class AlignmentStore(ShardStore):
    """Pair of image names -> `PairAlignment`."""

    @staticmethod
    def record(pair: ImagePair, fingerprint: str, alignment: PairAlignment) -> Record:
        """The stored form of a pair's alignment."""
        columns = {field.name: getattr(alignment, field.name) for field in fields(alignment)}
        return Record(pair_key(pair), fingerprint, columns)

    def load(self, pair: ImagePair) -> PairAlignment:
        """The alignment of a pair. Raises ArtifactError if absent or unreadable."""
        return PairAlignment(**self.read(pair_key(pair)))
