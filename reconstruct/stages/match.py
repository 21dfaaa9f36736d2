"""Match: mutual nearest neighbours of descriptors for every pair -> matches/.

``method: dense`` matches grids of descriptors coarse to fine instead of sets of them.

Similarity is the dot product of unit vectors; it is computed block by block, so memory does not
grow with the product of the numbers of keypoints. Descriptors are read once an image while they
stay in a bounded cache, and pairs are visited tile by tile to keep them there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from reconstruct.config import NotIdentity, Section
from reconstruct.errors import ConfigError
from reconstruct.features.compaction import expand
from reconstruct.matching.dense import grid_shape, match_grids
from reconstruct.stages import Context
from reconstruct.stages.extract import Extract
from reconstruct.stages.keyed import KeyedStage, Result, Worker
from reconstruct.storage.cache import Cache
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.matches import MatchStore, key_pair, pair_key
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
    shard = (8, 256)

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

    def find_fingerprints(self) -> dict[str, str] | None:
        """Pair -> fingerprint of its matches, over the settings and the features of both images."""
        pairs = self.pair.pairs()
        if pairs is None:
            return None
        identity, features = self.config.identity(), self.extract.known_fingerprints()
        return {
            pair_key((a, b)): fingerprint("matches", identity, [a, features[a]], [b, features[b]])
            for a, b in pairs
        }

    def pairs(self) -> list[ImagePair]:
        """The pairs that are matched, sorted."""
        return self.pair.pairs() or []

    def order(self, keys: Sequence[str]) -> list[str]:
        """Tile by tile, so that descriptors are read seldom."""
        return [pair_key(pair) for pair in tiled([key_pair(key) for key in keys])]

    def worker(self, fingerprints: Mapping[str, str]) -> Worker:
        """Reads descriptors and matches them."""
        return MatchWorker(
            features=self.extract.features,
            config=self.config,
            device=self.context.device,
            fingerprints=fingerprints,
        )

    def figures(self, made: int) -> dict[str, Any]:
        """How many pairs, and matches a pair."""
        counts = self.matches.lengths("matches")
        wanted = self.known_fingerprints()
        mean = np.mean([counts[key] for key in wanted]) if wanted else 0.0
        return {"pairs": len(wanted), "matched_now": made, "mean_matches": round(float(mean), 1)}


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchWorker:
    """Pairs of images -> matches of their keypoints."""

    features: FeatureStore
    config: MatchConfig
    device: str
    fingerprints: Mapping[str, str]

    def __call__(self, keys: Sequence[str]) -> Iterator[Result]:
        """Results for the pairs ``keys``."""
        device = resolve_device(self.device)

        def load(name: str) -> torch.Tensor:
            stored = self.features.read(name, only="descriptors")["descriptors"]
            return as_tensor(stored, device)

        cache = Cache(load, self.config.cache_mb << 20)
        for key in keys:
            pair = key_pair(key)
            descriptors = cache[pair[0]], cache[pair[1]]
            keypoints = self._keypoints(pair[0]), self._keypoints(pair[1])
            matches = match_images(descriptors, keypoints, self.config)
            yield Result(key, (MatchStore.record(pair, self.fingerprints[key], matches),))

    def _keypoints(self, name: str) -> NDArray[Any]:
        if self.config.method == "mutual_nn":  # which asks descriptors alone
            return np.zeros((0, 2), np.float32)
        return self.features.keypoints(name)
