"""Refine, pair by pair: matched positions of a benchmark's pairs -> methods/LABEL/refined/.

There is no track here, only two images: the position in the second moves until its surroundings
look like those in the first. (A reconstruction's `refine` moves keypoints over whole tracks.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from reconstruct.fingerprints import fingerprint
from reconstruct.geometry import Float64
from reconstruct.parallel import side_by_side
from reconstruct.refinement import Pyramid, RefineConfig, align_pair
from reconstruct.stages import Context
from reconstruct.stages.extract import Extract
from reconstruct.stages.keyed import KeyedStage, Result, Wanted, Worker
from reconstruct.stages.match import Match
from reconstruct.stages.photos import KnownPhotos
from reconstruct.stages.pyramids import cached_pyramids
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.matches import MatchStore, key_pair, pair_key
from reconstruct.storage.shard_file import Record
from reconstruct.storage.shards import ShardStore
from reconstruct.types import FloatArray, ImagePair


@dataclass(frozen=True, slots=True, eq=False)
class _Matched:
    """first, second: (M, 2) float32 matched positions of a pair."""

    first: FloatArray
    second: FloatArray


class RefinePairs(KeyedStage):
    """The stage, a part of `reconstruct.benchmark.method.Method`."""

    name = "refine"
    unit = "pairs"

    def __init__(
        self, context: Context, config: RefineConfig, extract: Extract, match: Match
    ) -> None:
        super().__init__(context, ShardStore(context.workspace.root / "refined"), [match])
        self.config = config
        self.extract = extract
        self.match = match

    def find_fingerprints(self) -> dict[str, str] | None:
        """Pair -> fingerprint over the settings and its matches."""
        identity, matches = self.config.identity(), self.match.fingerprints()
        if matches is None:
            return None
        return {key: fingerprint("refined", identity, value) for key, value in matches.items()}

    def figures(self, made: int) -> dict[str, Any]:
        """How many pairs."""
        return {"pairs": len(self.known_fingerprints()), "refined_now": made}

    def positions(self, pair: ImagePair) -> tuple[Float64, Float64]:
        """(M, 2), (M, 2) matched positions in COLMAP pixels."""
        fields = self.store.read(pair_key(pair))
        return fields["first"].astype(np.float64), fields["second"].astype(np.float64)

    def worker(self) -> Worker:
        """Refines the positions of pairs."""
        return RefinePairsWorker(
            photos=self.extract.photos(),
            features=self.extract.features,
            matches=self.match.matches,
            config=self.config,
            device=self.context.device,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RefinePairsWorker:
    """Pairs -> their matched positions, those of the second image moved."""

    photos: KnownPhotos
    features: FeatureStore
    matches: MatchStore
    config: RefineConfig
    device: str

    def __call__(self, wanted: Sequence[Wanted]) -> Iterator[Result]:
        """Results for pairs."""
        pyramids = cached_pyramids(self.photos.read, self.config, self.device)
        pairs = (key_pair(item.key) for item in wanted)
        jobs = ((self._load(pair), pyramids[pair[0]], pyramids[pair[1]]) for pair in pairs)
        found = side_by_side(lambda job: self._refined(*job), jobs)
        for (key, value, _), item in zip(wanted, found, strict=True):
            columns = {"first": item.first, "second": item.second}
            yield Result(key, (Record(key, value, columns),))

    def _load(self, pair: ImagePair) -> _Matched:
        matches = self.matches.load(pair)
        first, second = (self.features.keypoints(name) for name in pair)
        return _Matched(first[matches[:, 0]], second[matches[:, 1]])

    def _refined(self, item: _Matched, pyramid0: Pyramid, pyramid1: Pyramid) -> _Matched:
        if not len(item.first):
            return item
        matches = np.repeat(np.arange(len(item.first))[:, None], 2, axis=1)
        alignment = align_pair(pyramid0, pyramid1, item.first, item.second, matches, self.config)
        step = alignment.displacement / np.asarray(pyramid1.scale, np.float32)
        return replace(item, second=item.second + np.where(alignment.aligned[:, None], step, 0))
