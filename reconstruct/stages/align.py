"""Align: the patches of every verified match -> alignments/, how far each match is off.

The alignment of a pair depends on its two photos and its inliers, so it is kept pair by pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from reconstruct.fingerprints import fingerprint
from reconstruct.parallel import side_by_side
from reconstruct.refinement import (
    PairAlignment,
    Pyramid,
    RefineConfig,
    align_pair,
)
from reconstruct.stages import Context
from reconstruct.stages.keyed import KeyedStage, Result, Wanted, Worker
from reconstruct.stages.photos import KnownPhotos
from reconstruct.stages.pyramids import cached_pyramids
from reconstruct.stages.verify import Verify, check_indices
from reconstruct.storage.cache import Cache
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.geometries import GeometryStore
from reconstruct.storage.matches import key_pair, pair_key
from reconstruct.storage.shard_file import Record
from reconstruct.storage.shards import ShardStore
from reconstruct.types import ImagePair


class Align(KeyedStage):
    """The stage."""

    name = "align"
    unit = "pairs"

    def __init__(self, context: Context, config: RefineConfig, verify: Verify) -> None:
        super().__init__(context, ShardStore(context.workspace.alignments), [verify])
        self.config = config
        self.verify = verify

    def find_fingerprints(self) -> dict[str, str] | None:
        """Pair -> fingerprint over the settings and its geometry, which stands for the photos."""
        if not self.verify.current():
            return None
        identity, geometries = self.config.identity(), self.verify.known_fingerprints()
        keys = map(pair_key, self.verify.pairs())
        return {key: fingerprint("alignment", identity, geometries[key]) for key in keys}

    def order(self, keys: Sequence[str]) -> list[str]:
        """The order of matching, in which photos are read seldom."""
        return self.verify.order(keys)

    def worker(self) -> Worker:
        """Aligns the matches of pairs."""
        return AlignWorker(
            photos=self.verify.extract.photos(),
            features=self.verify.extract.features,
            geometries=self.verify.geometries,
            config=self.config,
            device=self.context.device,
        )

    def load(self, pair: ImagePair) -> PairAlignment:
        """The alignment of a pair."""
        key = pair_key(pair)
        stored = self.store.read(key)
        with self.store.decoding(key):
            found = PairAlignment(**stored)
            found.check()
            return found

    def figures(self, made: int) -> dict[str, Any]:
        """How many pairs."""
        return {"pairs": len(self.known_fingerprints()), "aligned_now": made}


@dataclass(frozen=True, kw_only=True, eq=False)
class AlignWorker:
    """Pairs -> the alignments of their inliers, several pairs at once.

    Pyramids of images stay for the next chunk, where chunks come one by one.
    """

    photos: KnownPhotos
    features: FeatureStore
    geometries: GeometryStore
    config: RefineConfig
    device: str

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "pyramids"}

    @cached_property
    def pyramids(self) -> Cache[Pyramid]:
        """Pyramids of images, by name."""
        return cached_pyramids(self.photos.read, self.config, self.device)

    def __call__(self, wanted: Sequence[Wanted]) -> Iterator[Result]:
        """Results for pairs."""
        pairs = (key_pair(item.key) for item in wanted)
        pyramids = self.pyramids
        jobs = ((pair, pyramids[pair[0]], pyramids[pair[1]]) for pair in pairs)
        found = side_by_side(lambda job: self._align(*job), jobs)
        for (key, value, _), alignment in zip(wanted, found, strict=True):
            columns = {field.name: getattr(alignment, field.name) for field in fields(alignment)}
            yield Result(key, (Record(key, value, columns),))

    def _align(self, pair: ImagePair, first: Pyramid, second: Pyramid) -> PairAlignment:
        keypoints = self.features.keypoints(pair[0]), self.features.keypoints(pair[1])
        inliers = self.geometries.inliers(pair)
        check_indices(pair, inliers, (len(keypoints[0]), len(keypoints[1])))
        return align_pair(first, second, *keypoints, inliers, self.config)
