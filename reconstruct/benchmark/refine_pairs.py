"""Refine, pair by pair: matched positions of a benchmark's pairs -> methods/LABEL/refined/.

There is no track here, only two images: the position in the second moves until its surroundings
look like those in the first. (A reconstruction's `refine` moves keypoints over whole tracks.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from reconstruct.geometry import Float64
from reconstruct.images import read_image
from reconstruct.parallel import side_by_side
from reconstruct.refinement import Pyramid, RefineConfig, align_pair, build_pyramid
from reconstruct.stages import Context, Plan
from reconstruct.stages.extract import Extract
from reconstruct.stages.match import Match
from reconstruct.storage.cache import Cache
from reconstruct.storage.matches import pair_key
from reconstruct.storage.shards import (
    Record,
    ShardStore,
    clean_temporaries,
    shard_size,
    write_in_shards,
)
from reconstruct.torch_device import resolve_device
from reconstruct.types import FloatArray, ImagePair
from reconstruct.workspace import fingerprint


@dataclass(frozen=True, slots=True, eq=False)
class _Matched:
    """first, second: (M, 2) float32 matched positions of a pair."""

    pair: ImagePair
    first: FloatArray
    second: FloatArray


class RefinePairs:
    """The stage, a part of `reconstruct.benchmark.method.Method`."""

    name = "refine"

    def __init__(
        self, context: Context, config: RefineConfig, extract: Extract, match: Match
    ) -> None:
        self.context = context
        self.config = config
        self.extract = extract
        self.match = match
        self.store = ShardStore(context.workspace.root / "refined")

    def wanted(self, pairs: Sequence[ImagePair]) -> dict[ImagePair, str]:
        """Pair -> fingerprint that its refined positions must have."""
        identity = self.config.identity()
        matches = self.match.wanted(pairs)
        return {pair: fingerprint("refined", identity, value) for pair, value in matches.items()}

    def _todo(self, wanted: dict[ImagePair, str]) -> list[ImagePair]:
        have = self.store.fingerprints()
        return sorted(pair for pair, value in wanted.items() if have.get(pair_key(pair)) != value)

    def plan(self) -> Plan:
        """How many pairs lack refined positions."""
        wanted = self.wanted(self.match.pair.choose(list(self.extract.wanted())) or [])
        todo = self._todo(wanted)
        if not todo:
            return Plan("done", "up to date", 0, len(wanted))
        return Plan("missing", "positions of matches or settings changed", len(todo), len(wanted))

    def discard(self) -> None:
        """Drop all refined positions."""
        self.store.discard(lambda key: True)

    def run(self) -> None:
        """Refine the pairs that are missing."""
        clean_temporaries(self.store.folder)
        wanted = self.wanted(self.match.pair.pairs())
        todo = self._todo(wanted)
        size = shard_size(len(wanted), 4, 64)
        with self.context.reporter.task(self.name, len(todo), "pairs") as advance:
            for _ in write_in_shards(self.store, self._records(todo, wanted), size):
                advance()
        self.store.compact()

    def positions(self, pair: ImagePair) -> tuple[Float64, Float64]:
        """(M, 2), (M, 2) matched positions in COLMAP pixels."""
        fields = self.store.read(pair_key(pair))
        return fields["first"].astype(np.float64), fields["second"].astype(np.float64)

    def _records(self, todo: list[ImagePair], wanted: dict[ImagePair, str]) -> Iterator[Record]:
        pyramids = Cache[Pyramid](self._pyramid, self.config.cache_mb << 20)
        jobs = ((self._load(pair), pyramids[pair[0]], pyramids[pair[1]]) for pair in todo)
        for item in side_by_side(lambda job: self._refined(*job), jobs):
            fields = {"first": item.first, "second": item.second}
            yield Record(pair_key(item.pair), wanted[item.pair], fields)

    def _load(self, pair: ImagePair) -> _Matched:
        rows = self.match.store.load(pair)
        first, second = (
            self.extract.store.read(name, only="keypoints")["keypoints"] for name in pair
        )
        return _Matched(pair, first[rows[:, 0]], second[rows[:, 1]])

    def _refined(self, item: _Matched, pyramid0: Pyramid, pyramid1: Pyramid) -> _Matched:
        if not len(item.first):
            return item
        rows = np.repeat(np.arange(len(item.first))[:, None], 2, axis=1)
        found = align_pair(pyramid0, pyramid1, item.first, item.second, rows, self.config)
        step = found.displacement / np.asarray(pyramid1.scale, np.float32)
        return replace(item, second=item.second + np.where(found.aligned[:, None], step, 0))

    def _pyramid(self, name: str) -> Pyramid:
        image = read_image(self.context.dataset.path(name))
        device = resolve_device(self.context.device)
        return build_pyramid(image, self.config.max_edge, device)
