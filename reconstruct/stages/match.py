"""Match: the keypoints that two images share, for every pair -> matches/.

How pairs are matched is the business of `reconstruct.matching`. Descriptors are read once an image
while they stay in a bounded cache, and pairs are visited tile by tile to keep them there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from reconstruct.errors import ConfigError
from reconstruct.matching.config import MatchConfig as MatchConfig
from reconstruct.matching.dense import DenseConfig, grid_shape, make_grid, match_grids
from reconstruct.matching.many import TILE as TILE
from reconstruct.matching.many import tiled as tiled
from reconstruct.matching.mutual_nn import MutualNNConfig, mutual_nearest
from reconstruct.matching.mutual_nn import match as match
from reconstruct.matching.nearest import unit_vectors
from reconstruct.stages import Context, Plan, need
from reconstruct.stages.extract import Extract
from reconstruct.storage.cache import Cache
from reconstruct.storage.matches import MatchStore, pair_key
from reconstruct.storage.shards import Record, clean_temporaries, shard_size, write_in_shards
from reconstruct.torch_device import resolve_device
from reconstruct.types import ImagePair
from reconstruct.workspace import fingerprint

as_tensor = unit_vectors


def match_images(
    descriptors: tuple[torch.Tensor, torch.Tensor],
    keypoints: tuple[NDArray[Any], NDArray[Any]],
    config: MatchConfig,
) -> NDArray[np.uint32]:
    """(M, 2) matches of two images by ``config``. descriptors: see `as_tensor`; keypoints: (N, 2).

    Raises ValueError if keypoints for dense matching are not on a grid.
    """
    if isinstance(config, MutualNNConfig):
        return match_tensors(*descriptors, config.ratio, config.min_score)
    assert isinstance(config, DenseConfig)
    shapes = map(grid_shape, keypoints)
    grids = [make_grid(*g, config.coarse) for g in zip(descriptors, shapes, strict=True)]
    return match_grids(
        *grids, coarse=config.coarse, margin=config.margin, min_score=config.min_score
    ).indices


def match_tensors(
    first: torch.Tensor, second: torch.Tensor, ratio: float | None, min_score: float | None
) -> NDArray[np.uint32]:
    """`match` for (N, D) float32 tensors on one device."""
    return mutual_nearest(first, second, ratio=ratio, min_score=min_score).indices


class PairSource(Protocol):
    """Where the pairs come from: `reconstruct.stages.pair.Pair`, or a benchmark's list."""

    def choose(self, names: Sequence[str]) -> list[ImagePair] | None:
        """The pairs that will be matched once ``names`` have features; None where that depends on
        the features themselves."""

    def pairs(self) -> list[ImagePair]:
        """The pairs to be matched now."""

    def up_to_date(self) -> bool:
        """Whether `pairs` stands for the present images."""


class Match:
    """The stage; later stages ask it for pairs, fingerprints and matches."""

    name = "match"

    def __init__(
        self, context: Context, config: MatchConfig, extract: Extract, pair: PairSource
    ) -> None:
        self.context = context
        self.config = config
        self.extract = extract
        self.pair = pair
        self.store = MatchStore(context.workspace.matches)
        local = extract.config.local.identity()["name"]
        if config.method == "dense" and local != "grid":
            raise ConfigError(f"match.method: dense needs local: {{name: grid}}, not {local}")

    def wanted(self, pairs: Sequence[ImagePair]) -> dict[ImagePair, str]:
        """Pair -> fingerprint that its matches must have."""
        identity, prints = self.config.identity(), self.extract.wanted()
        return {
            (a, b): fingerprint("matches", identity, [a, prints[a]], [b, prints[b]])
            for a, b in pairs
        }

    def _todo(self, wanted: dict[ImagePair, str]) -> list[ImagePair]:
        have = self.store.fingerprints()
        return [pair for pair in tiled(list(wanted)) if have.get(pair_key(pair)) != wanted[pair]]

    def plan(self) -> Plan:
        """How many pairs lack matches, foreseeing the pairs where they are not chosen yet."""
        pairs = self.pair.choose(list(self.extract.wanted()))
        if pairs is None:
            return Plan("waiting", "the pairs follow from global descriptors")
        wanted = self.wanted(pairs)
        todo = self._todo(wanted)
        if not todo:
            return Plan("done", "up to date", 0, len(wanted))
        have = self.store.fingerprints()
        stale = sum(pair_key(pair) in have for pair in todo)
        why = f"{stale} changed (features or settings), {len(todo) - stale} new"
        return Plan("stale" if stale else "missing", why, len(todo), len(wanted))

    def complete(self) -> bool:
        """Whether the committed pairs stand for the extracted images and all have matches."""
        return self.pair.up_to_date() and not self._todo(self.wanted(self.pair.pairs()))

    def discard(self) -> None:
        """Drop all matches."""
        self.store.discard(lambda key: True)

    def run(self) -> None:
        """Match the pairs that are missing."""
        need(self.pair.up_to_date(), self.name, "pair")
        clean_temporaries(self.store.folder)
        wanted = self.wanted(self.pair.pairs())
        todo = self._todo(wanted)
        size = shard_size(len(wanted), 8, 256)
        with self.context.reporter.task(self.name, len(todo), "pairs") as advance:
            for _ in write_in_shards(self.store, self._records(todo, wanted), size):
                advance()
        self.store.compact()
        counts = [len(self.store.load(pair)) for pair in wanted]
        self.context.summary.figures[self.name] = {
            "pairs": len(wanted),
            "matched_now": len(todo),
            "mean_matches": round(float(np.mean(counts)), 1),
        }

    def _records(self, todo: list[ImagePair], wanted: dict[ImagePair, str]) -> Iterator[Record]:
        device = resolve_device(self.context.device)

        def load(name: str) -> torch.Tensor:
            stored = self.extract.store.read(name, only="descriptors")["descriptors"]
            return as_tensor(stored, device)

        cache = Cache(load, self.config.cache_mb << 20)
        for pair in todo:
            descriptors = cache[pair[0]], cache[pair[1]]
            keypoints = self._keypoints(pair[0]), self._keypoints(pair[1])
            found = match_images(descriptors, keypoints, self.config)
            yield MatchStore.record(pair, wanted[pair], found)

    def _keypoints(self, name: str) -> NDArray[Any]:
        if self.config.method == "mutual_nn":  # which asks descriptors alone
            return np.zeros((0, 2), np.float32)
        return self.extract.store.read(name, only="keypoints")["keypoints"]
