"""Match: the keypoints that two images share, for every pair -> matches/.

How pairs are matched is the business of `reconstruct.matching`. Features are read once an image
while they stay in a bounded cache, and pairs are visited tile by tile to keep them there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np

from reconstruct import matching
from reconstruct.errors import ConfigError
from reconstruct.fingerprints import fingerprinter, json_text
from reconstruct.matching.config import MatchConfig
from reconstruct.matching.many import match_prepared, prepared_images, tiled
from reconstruct.stages import Context
from reconstruct.stages.extract import Extract
from reconstruct.stages.keyed import KeyedStage, Result, Wanted, Worker
from reconstruct.storage.cache import Cache, Sized
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.matches import MatchStore, key_pair, pair_key, pair_keys
from reconstruct.types import ImagePair


class PairSource(Protocol):
    """Where the pairs come from: `reconstruct.stages.pair.Pair`, or a benchmark's list."""

    @property
    def name(self) -> str:
        """Its name, for messages."""

    def pairs(self) -> list[ImagePair] | None:
        """The pairs to match, sorted; None where that depends on what is not there yet."""

    def current(self) -> bool:
        """Whether these pairs stand for the present images."""


class Match(KeyedStage):
    """The stage; later stages ask it for pairs, fingerprints and matches."""

    name = "match"
    unit = "pairs"
    shard = (4, 256)

    def __init__(
        self, context: Context, config: MatchConfig, extract: Extract, pair: PairSource
    ) -> None:
        self.matches = MatchStore(context.workspace.matches)
        super().__init__(context, self.matches, [extract, pair])
        self.config = config
        self.extract = extract
        self.pair = pair
        local = extract.config.local.identity()["name"]
        if config.method == "dense" and local != "grid":
            raise ConfigError(f"match.method: dense needs local: {{name: grid}}, not {local}")
        if config.method == "lightglue" and local == "together":
            raise ConfigError("match.method: lightglue knows one kind of descriptor, not together")

    def find_fingerprints(self) -> dict[str, str] | None:
        """Pair -> fingerprint of its matches, over the settings and the features of both images."""
        pairs = self.pair.pairs()
        if pairs is None:
            return None
        features = self.extract.known_fingerprints()
        identity = matching.create(self.config, self.context.device).identity()
        found = fingerprinter("matches", identity)
        texts = {name: json_text([name, value]) for name, value in features.items()}
        keys = pair_keys(pairs)
        return {key: found(texts[a], texts[b]) for key, (a, b) in zip(keys, pairs, strict=True)}

    def count_wanted(self) -> int | None:
        """How many pairs; None where they are not chosen yet."""
        pairs = self.pair.pairs()
        return None if pairs is None else len(pairs)

    def pairs(self) -> list[ImagePair]:
        """The pairs that are matched, sorted."""
        return self.pair.pairs() or []

    def order(self, keys: Sequence[str]) -> list[str]:
        """Tile by tile, so that descriptors are read seldom."""
        return [pair_key(pair) for pair in tiled([key_pair(key) for key in keys])]

    def worker(self) -> Worker:
        """Reads descriptors and matches them."""
        return MatchWorker(
            features=self.extract.features, config=self.config, device=self.context.device
        )

    def figures(self, made: int) -> dict[str, Any]:
        """How many pairs, and matches a pair."""
        counts = self.matches.lengths("matches")
        wanted = self.known_fingerprints()
        mean = np.mean([counts[key] for key in wanted]) if wanted else 0.0
        return {"pairs": len(wanted), "matched_now": made, "mean_matches": round(float(mean), 1)}


@dataclass(frozen=True, kw_only=True, eq=False)
class MatchWorker:
    """Pairs of images -> matches of their keypoints.

    What was prepared of images stays for the next chunk, where chunks come one by one.
    """

    features: FeatureStore
    config: MatchConfig
    device: str

    def __getstate__(self) -> dict[str, Any]:
        loaded = ("matcher", "prepared")
        return {name: value for name, value in vars(self).items() if name not in loaded}

    @cached_property
    def matcher(self) -> matching.Matcher:
        """What finds the matches of two images."""
        return matching.create(self.config, self.device)

    @cached_property
    def prepared(self) -> Cache[Sized]:
        """What it takes of images, by name."""
        load = partial(self.features.load, fields=self.matcher.reads)
        return prepared_images(self.matcher, load, self.config.cache_mb)

    def __call__(self, wanted: Sequence[Wanted]) -> Iterator[Result]:
        """Results for pairs."""
        pairs = [key_pair(item.key) for item in wanted]
        found = match_prepared(self.matcher, pairs, self.prepared)
        for (key, value, _), (pair, matches) in zip(wanted, found, strict=True):
            yield Result(key, (MatchStore.record(pair, value, matches),))
