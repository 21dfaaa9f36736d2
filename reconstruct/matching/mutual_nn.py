"""Mutual nearest neighbours of descriptors; where it is asked for, with Lowe's ratio test, and
only those that agree with the matches around them (`reconstruct.matching.consensus`), which may
choose among several near ones, and say where to look for more (`reconstruct.matching.guided`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from reconstruct.lazy import lazily
from reconstruct.matching import MatcherConfig
from reconstruct.matching.consensus import ConsensusConfig, consistent
from reconstruct.matching.guided import GuidedConfig, guided
from reconstruct.matching.nearest import (
    Best,
    nearest_both_ways,
    several_nearest_both_ways,
    unit_vectors,
)
from reconstruct.torch_device import resolve_device
from reconstruct.types import FloatArray, IndexArray, LocalFeatures, Matches

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazily("torch")


class MutualNNConfig(MatcherConfig):
    """Mutual nearest neighbours: each descriptor is the nearest of all to the other."""

    method: Literal["mutual_nn"] = "mutual_nn"
    ratio: float | None = Field(None, gt=0, lt=1)
    """Keep a match only if its distance is below this times that to the second nearest, seen from
    either image (Lowe's test; null: no test, as in the D2-Net paper; 0.8 to 0.9 suits SIFT)."""
    min_score: float | None = Field(None, ge=-1, le=1)
    """Keep a match only if the cosine of its descriptors is at least this."""
    filter: ConsensusConfig | None = None
    """Keep a match only if those around it move along with it ({}: with the default settings)."""
    candidates: int = Field(1, ge=1, le=20)
    """Match keypoints that are among each other's this many nearest, and let the filter choose. Of
    the matches of a keypoint that it keeps, the one with the most similar descriptors stays."""

    guided: GuidedConfig | None = None
    """After the filter, look for the keypoints that have no match near where its matches put them
    ({}: with the default settings)."""

    @model_validator(mode="after")
    def _a_filter_chooses(self) -> Self:
        if self.candidates > 1 and (self.filter is None or self.ratio is not None):
            raise ValueError("`candidates` above 1 needs `filter`, and takes no `ratio`")
        if self.guided is not None and self.filter is None:
            raise ValueError("`guided` needs `filter`")
        return self

    def identity(self) -> dict[str, Any]:
        """The same as when all matchers shared one section, so that older matches stay valid.

        At that time the ratio test was made in one direction only.
        """
        own = super().identity()
        if self.filter is None:
            del own["filter"]
        if self.candidates == 1:
            del own["candidates"]
        if self.guided is None:
            del own["guided"]
        shared = {"coarse": 4, "margin": 2}
        both_ways = {} if self.ratio is None else {"ratio_test": "both ways"}
        return {**own, **shared, **both_ways}


@dataclass(frozen=True, slots=True, eq=False)
class Kind:
    """The keypoints of an image that one extractor found.

    rows: (n,) int64, which they are, ascending.
    vectors: (n, d) columns ``first`` to ``first + d`` of their unit descriptors on the device; the
        other columns hold zeros.
    """

    rows: NDArray[np.int64]
    vectors: Tensor
    first: int = 0

    @classmethod
    def of(cls, vectors: Tensor, rows: NDArray[np.int64]) -> Kind:
        """Those at ``rows`` of an image's (N, D) unit descriptors."""
        chosen = vectors[torch.from_numpy(rows).to(vectors.device)]
        used = chosen.any(dim=0).nonzero()[:, 0].tolist() or [0]
        return cls(rows, chosen[:, used[0] : used[-1] + 1].contiguous(), used[0])

    def columns(self, start: int, stop: int) -> Tensor:
        """(n, stop - start) columns of the descriptors."""
        return self.vectors[:, start - self.first : stop - self.first]

    @property
    def last(self) -> int:
        """The column after the last one."""
        return self.first + self.vectors.shape[1]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """An image: its keypoints by the extractor that found them; (N, 2) keypoints, or none where no
    filter asks for them."""

    kinds: dict[int, Kind]
    keypoints: FloatArray

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return sum(kind.vectors.nbytes for kind in self.kinds.values()) + self.keypoints.nbytes


class MutualNN:
    """See `reconstruct.matching.Matcher`."""

    def __init__(self, config: MutualNNConfig, *, device: str = "auto") -> None:
        self.config = config
        self.reads: tuple[str, ...] = ("descriptors", "kinds")
        if config.filter is not None:
            self.reads = ("descriptors", "kinds", "keypoints")
        self.device = device

    def identity(self) -> dict[str, Any]:
        """The settings."""
        return self.config.identity()

    def prepare(self, features: LocalFeatures) -> Prepared:
        """Unit descriptors on the device, and keypoints."""
        vectors = unit_vectors(features.descriptors, resolve_device(self.device))
        if features.kinds is None:
            return Prepared({0: Kind(np.arange(len(vectors)), vectors)}, features.keypoints)
        rows = {int(k): np.flatnonzero(features.kinds == k) for k in np.unique(features.kinds)}
        kinds = {k: Kind.of(vectors, of_kind) for k, of_kind in rows.items()}
        return Prepared(kinds, features.keypoints)

    def match(self, first: Prepared, second: Prepared) -> Matches:
        """Mutual nearest neighbours of one kind; scores are cosines."""
        shared = sorted(first.kinds.keys() & second.kinds.keys())
        found = _joined([self._of_one_kind(first.kinds[k], second.kinds[k]) for k in shared])
        if self.config.filter is None:
            return found
        rows0, rows1 = found.indices.T
        keep = consistent(first.keypoints[rows0], second.keypoints[rows1], self.config.filter)
        kept = Matches(indices=found.indices[keep], scores=found.scores[keep])
        if self.config.candidates > 1:
            kept = one_to_one(kept)
        if self.config.guided is None:
            return kept
        return _joined([kept, *(self._guided(first, second, kept, k) for k in shared)])

    def _guided(self, first: Prepared, second: Prepared, kept: Matches, kind: int) -> Matches:
        """Further matches of one kind, near where those ``kept`` of all kinds put them."""
        assert self.config.guided is not None
        assert self.config.filter is not None
        a, b = first.kinds[kind], second.kinds[kind]
        rows0, rows1 = kept.indices.T
        found = guided(
            (first.keypoints[a.rows], second.keypoints[b.rows]),
            _in_common(a, b),
            (_without(a.rows, rows0), _without(b.rows, rows1)),
            (first.keypoints[rows0], second.keypoints[rows1]),
            self.config.guided,
            self.config.filter,
        )
        return _of_rows(one_to_one(found), a, b)

    def _of_one_kind(self, a: Kind, b: Kind) -> Matches:
        return _of_rows(_mutual(*_in_common(a, b), self.config), a, b)


def _in_common(a: Kind, b: Kind) -> tuple[Tensor, Tensor]:
    """The columns that descriptors of both may have: zeros elsewhere add nothing to a product."""
    start = max(a.first, b.first)
    stop = max(start, min(a.last, b.last))
    return a.columns(start, stop), b.columns(start, stop)


def _of_rows(found: Matches, a: Kind, b: Kind) -> Matches:
    """Matches of the keypoints of a kind, as those of the images' keypoints."""
    rows0, rows1 = found.indices.T
    indices = np.column_stack([a.rows[rows0], b.rows[rows1]]).astype(np.uint32)
    return Matches(indices=indices, scores=found.scores)


def _without(rows: NDArray[np.int64], matched: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Which of a kind's keypoints, ``rows`` of an image, are not among those that are matched."""
    return np.flatnonzero(~np.isin(rows, matched))


def _mutual(first: Tensor, second: Tensor, config: MutualNNConfig) -> Matches:
    """Pairs of (N, D) and (M, D) vectors that are each near to the other."""
    if config.candidates > 1:
        return mutually_among(first, second, config.candidates, min_score=config.min_score)
    return mutual_nearest(first, second, ratio=config.ratio, min_score=config.min_score)


def _joined(kinds: list[Matches]) -> Matches:
    """The matches of all kinds, sorted by the keypoint of the first image."""
    if len(kinds) < 2:
        return kinds[0] if kinds else Matches.empty()
    indices = np.concatenate([found.indices for found in kinds])
    order = np.argsort(indices[:, 0])
    return Matches(
        indices=indices[order], scores=np.concatenate([found.scores for found in kinds])[order]
    )


def match(
    descriptors0: NDArray[Any],
    descriptors1: NDArray[Any],
    *,
    ratio: float | None = None,
    min_score: float | None = None,
    device: str = "auto",
) -> IndexArray:
    """Mutual nearest neighbours of two sets of unit descriptors.

    Args:
        descriptors0: (N0, D), any float type, or as stored (float16, uint8).
        descriptors1: (N1, D) likewise; similarity is the dot product.
        ratio: Lowe's test on Euclidean distances, which has to hold in both directions.
        min_score: least cosine.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Returns:
        (M, 2) uint32, sorted by the first column. Of equal similarities the first index wins.

    Raises:
        UsageError: the device is not there.
    """
    where = resolve_device(device)
    first, second = (unit_vectors(d, where) for d in (descriptors0, descriptors1))
    return mutual_nearest(first, second, ratio=ratio, min_score=min_score).indices


def mutual_nearest(
    first: Tensor, second: Tensor, *, ratio: float | None = None, min_score: float | None = None
) -> Matches:
    """`match` for (N, D) float32 tensors on one device, with scores."""
    if not len(first) or not len(second):
        return Matches.empty()
    forward, backward = nearest_both_ways(first, second, runner_up=ratio is not None)
    number = torch.arange(len(first), device=first.device)
    keep = backward.index[forward.index] == number
    if min_score is not None:
        keep &= forward.score >= min_score
    if ratio is not None:
        keep &= _distinct(forward, ratio) & _distinct(backward, ratio)[forward.index]
    indices = torch.stack([number, forward.index], dim=1)[keep]
    return Matches(
        indices=indices.cpu().numpy().astype(np.uint32), scores=forward.score[keep].cpu().numpy()
    )


def mutually_among(
    first: Tensor, second: Tensor, count: int, *, min_score: float | None = None
) -> Matches:
    """All pairs of (N, D) and (M, D) vectors that are among the ``count`` nearest of each other.

    A vector may be in several pairs; they are sorted by the first column, then by similarity.
    """
    if not len(first) or not len(second):
        return Matches.empty()
    forward, backward = several_nearest_both_ways(first, second, count)
    number = torch.arange(len(first), device=first.device)[:, None].expand_as(forward.index)
    keep = (forward.index >= 0) & (backward.index[forward.index] == number[..., None]).any(-1)
    if min_score is not None:
        keep &= forward.score >= min_score
    indices = torch.stack([number[keep], forward.index[keep]], dim=1)
    return Matches(
        indices=indices.cpu().numpy().astype(np.uint32), scores=forward.score[keep].cpu().numpy()
    )


def one_to_one(matches: Matches) -> Matches:
    """The matches that are the most similar ones of both of their keypoints; the first among
    equals."""
    order = np.lexsort([*matches.indices.T[::-1], -matches.scores])
    keep = np.ones(len(order), np.bool_)
    for keypoints in matches.indices.T:
        _, foremost = np.unique(keypoints[order], return_index=True)
        keep &= np.isin(np.arange(len(order)), order[foremost])
    return Matches(indices=matches.indices[keep], scores=matches.scores[keep])


def _distinct(best: Best, ratio: float) -> Tensor:
    """(N,) whether the nearest is nearer than ``ratio`` times the second nearest."""
    assert best.runner_up is not None
    # |a - b|^2 = 2 - 2 a.b for unit vectors
    nearest, second = (2 - 2 * score for score in (best.score, best.runner_up))
    return nearest.clamp(min=0) < ratio**2 * second.clamp(min=0)
