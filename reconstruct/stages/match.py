"""Match: mutual nearest neighbours of descriptors for every pair -> matches/.

``method: dense`` matches grids of descriptors coarse to fine instead of sets of them.

Similarity is the dot product of unit vectors; it is computed block by block, so memory does not
grow with the product of the numbers of keypoints. Descriptors are read once an image while they
stay in a bounded cache, and pairs are visited tile by tile to keep them there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from reconstruct.config import NotIdentity, Section
from reconstruct.errors import ConfigError
from reconstruct.features.compaction import expand
from reconstruct.matching.dense import grid_shape, match_grids
from reconstruct.stages import Context, Plan, need
from reconstruct.stages.extract import Extract
from reconstruct.storage.cache import Cache
from reconstruct.storage.matches import MatchStore, pair_key
from reconstruct.storage.shards import Record, clean_temporaries, shard_size, write_in_shards
from reconstruct.torch_device import resolve_device
from reconstruct.types import ImagePair
from reconstruct.workspace import fingerprint

ROWS, COLUMNS = 512, 8192
"""Size of a block of similarities: 16 MiB of float32 stay in the cache of a CPU."""
TILE = 16
"""Images a side of a tile of pairs."""


class MatchConfig(Section):
    """Section ``match``."""

    method: Literal["mutual_nn", "dense"] = "mutual_nn"
    """mutual_nn: of all descriptors; dense: coarse to fine, of ``extract.local: {name: grid}``."""
    ratio: float | None = Field(None, gt=0, lt=1)
    """Keep a match only if its distance is below this times the second nearest one's (Lowe's
    test; null: no test, as in the D2-Net paper; 0.8 to 0.9 suits SIFT)."""
    min_score: float | None = Field(None, ge=-1, le=1)
    """Keep a match only if the cosine of its descriptors is at least this."""
    coarse: int = Field(4, ge=1)
    """dense: cells a side of the blocks whose mutual nearest neighbours are refined."""
    margin: int = Field(2, ge=0)
    """dense: cells around a matching block that are looked at too."""
    cache_mb: Annotated[int, NotIdentity] = Field(2048, ge=1)
    """Memory for descriptors that wait for their next pair."""

    @model_validator(mode="after")
    def _check(self) -> MatchConfig:
        if self.method == "dense" and self.ratio is not None:
            raise ValueError("`ratio` goes with `method: mutual_nn`; dense has `min_score`")
        return self


def match(
    descriptors0: NDArray[Any],
    descriptors1: NDArray[Any],
    *,
    ratio: float | None = None,
    min_score: float | None = None,
    device: str = "auto",
) -> NDArray[np.uint32]:
    """Mutual nearest neighbours of two sets of unit descriptors.

    descriptors0: (N0, D), descriptors1: (N1, D), any float type; similarity is the dot product.
    ratio: Lowe's test on Euclidean distances, in the direction 0 -> 1. min_score: least cosine.
    Returns (M, 2) uint32, sorted by the first column. Of equal similarities the first index wins.
    """
    where = resolve_device(device)
    first, second = (as_tensor(d, where) for d in (descriptors0, descriptors1))
    return match_tensors(first, second, ratio, min_score)


def as_tensor(descriptors: NDArray[Any], device: torch.device) -> torch.Tensor:
    """(N, D) float32 unit vectors on ``device``, of descriptors in any stored form."""
    compact = descriptors.dtype in (np.float16, np.uint8)
    values = expand(descriptors) if compact else np.asarray(descriptors, np.float32)
    shared = np.require(values, requirements=["C", "W"])  # torch takes no read-only memory
    return torch.from_numpy(shared).to(device)


def match_images(
    descriptors: tuple[torch.Tensor, torch.Tensor],
    keypoints: tuple[NDArray[Any], NDArray[Any]],
    config: MatchConfig,
) -> NDArray[np.uint32]:
    """(M, 2) matches of two images by ``config``. descriptors: see `as_tensor`; keypoints: (N, 2).

    Raises ValueError if keypoints for dense matching are not on a grid.
    """
    if config.method == "mutual_nn":
        return match_tensors(*descriptors, config.ratio, config.min_score)
    return match_grids(
        *descriptors,
        grid_shape(keypoints[0]),
        grid_shape(keypoints[1]),
        coarse=config.coarse,
        margin=config.margin,
        min_score=config.min_score,
    )


def match_tensors(
    first: torch.Tensor, second: torch.Tensor, ratio: float | None, min_score: float | None
) -> NDArray[np.uint32]:
    """`match` for (N, D) float32 tensors on one device."""
    if not len(first) or not len(second):
        return np.zeros((0, 2), np.uint32)
    forward, best, runner_up, backward = _nearest(first, second, ratio is not None)
    index = torch.arange(len(first), device=first.device)
    keep = backward[forward] == index
    if min_score is not None:
        keep &= best >= min_score
    if ratio is not None:  # |a - b|^2 = 2 - 2 a.b for unit vectors
        keep &= (2 - 2 * best).clamp(min=0) < ratio**2 * (2 - 2 * runner_up).clamp(min=0)
    pairs = torch.stack([index[keep], forward[keep]], dim=1)
    return pairs.cpu().numpy().astype(np.uint32)


def _nearest(
    first: torch.Tensor, second: torch.Tensor, with_second: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Nearest column of each row, its similarity, the next best one, nearest row of each column."""
    rows, columns, device = len(first), len(second), first.device
    forward = torch.zeros(rows, dtype=torch.long, device=device)
    backward = torch.zeros(columns, dtype=torch.long, device=device)
    best = torch.full((rows,), -torch.inf, device=device)
    runner_up = torch.full((rows,), -torch.inf, device=device)
    column_best = torch.full((columns,), -torch.inf, device=device)
    for r in range(0, rows, ROWS):
        for c in range(0, columns, COLUMNS):
            block = first[r : r + ROWS] @ second[c : c + COLUMNS].T
            _update(column_best[c : c + COLUMNS], backward[c : c + COLUMNS], *block.max(0), r)
            part, place = block.max(1)
            if with_second:
                block.scatter_(1, place[:, None], -torch.inf)
                lesser = torch.minimum(part, best[r : r + ROWS])
                other = torch.maximum(block.amax(1), lesser)
                runner_up[r : r + ROWS] = torch.maximum(runner_up[r : r + ROWS], other)
            _update(best[r : r + ROWS], forward[r : r + ROWS], part, place, c)
    return forward, best, runner_up, backward


def _update(
    best: torch.Tensor, index: torch.Tensor, part: torch.Tensor, place: torch.Tensor, offset: int
) -> None:
    better = part > best  # strictly: of equal ones the first block keeps its place
    best[better] = part[better]
    index[better] = place[better] + offset


def tiled(pairs: Sequence[ImagePair], tile: int = TILE) -> list[ImagePair]:
    """``pairs`` in an order in which a cache of 2 x ``tile`` images seldom misses."""
    number = {name: i for i, name in enumerate(sorted({name for pair in pairs for name in pair}))}

    def place(pair: ImagePair) -> tuple[int, int, int, int]:
        i, j = number[pair[0]], number[pair[1]]
        return i // tile, j // tile, i, j

    return sorted(pairs, key=place)


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
