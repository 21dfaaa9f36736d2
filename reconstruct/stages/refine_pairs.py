"""Refine, pair by pair: matched positions of a benchmark's pairs -> methods/LABEL/refined/.

There is no track here, only two images: the position in the second moves until its surroundings
look like those in the first. (A reconstruction's `refine` moves keypoints over whole tracks.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from reconstruct.geometry import Float64
from reconstruct.images import read_image
from reconstruct.refinement import Pyramid, RefineConfig, align_pair, build_pyramid
from reconstruct.stages import Context, Plan
from reconstruct.stages.extract import Extract
from reconstruct.stages.match import Match
from reconstruct.storage.matches import pair_key
from reconstruct.storage.shards import (
    Record,
    ShardStore,
    clean_temporaries,
    shard_size,
    write_in_shards,
)
from reconstruct.torch_device import resolve_device
from reconstruct.types import ImagePair
from reconstruct.workspace import fingerprint

KEPT = 6
"""Pyramids in memory: pairs are sorted, and those of a sequence share its first image."""


class RefinePairs:
    """The stage, a part of `reconstruct.stages.method.Method`."""

    name = "refine"

    def __init__(
        self, context: Context, config: RefineConfig, extract: Extract, match: Match
    ) -> None:
        self.context = context
        self.config = config
        self.extract = extract
        self.match = match
        self.store = ShardStore(context.workspace.root / "refined")
        self._pyramids: dict[str, Pyramid] = {}

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
        for pair in todo:
            matches = self.match.store.load(pair)
            first, second = (
                self.extract.store.read(name, only="keypoints")["keypoints"] for name in pair
            )
            moved = second[matches[:, 1]]
            if len(matches):
                pyramids = self._pyramid(pair[0]), self._pyramid(pair[1])
                found = align_pair(*pyramids, first, second, matches, self.config)
                rows = found.aligned
                moved[rows] += found.displacement[rows] / np.asarray(pyramids[1].scale, np.float32)
            fields = {"first": first[matches[:, 0]], "second": moved}
            yield Record(pair_key(pair), wanted[pair], fields)

    def _pyramid(self, name: str) -> Pyramid:
        if name not in self._pyramids:
            while len(self._pyramids) >= KEPT:
                self._pyramids.pop(next(iter(self._pyramids)))
            image = read_image(self.context.dataset.path(name))
            device = resolve_device(self.context.device)
            self._pyramids[name] = build_pyramid(image, self.config.max_edge, device)
        return self._pyramids[name]
