"""Nearest neighbours of unit vectors, block by block: memory does not grow with N x M.

Similarity is the dot product. Of equal ones the first index wins, whatever the blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.features.compaction import expand
from reconstruct.lazy import lazily
from reconstruct.matching.rounded import bfloat16_is_fast, likely_nearest

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazily("torch")

BlockSize = tuple[int, int]
CPU_BLOCK: BlockSize = (256, 2048)
"""Rows and columns of a block: 2 MiB of float32 stay in the cache of a core."""
GPU_BLOCK: BlockSize = (4096, 16384)
"""256 MiB: few, large operations."""
PAIRS = 4096
"""Pairs of vectors that are multiplied at once."""
MANY = 2**26
"""Multiplications from which on they are made in bfloat16: 1,000 x 1,000 vectors of 64 numbers."""


def unit_vectors(descriptors: NDArray[Any], device: torch.device) -> Tensor:
    """(N, D) float32 unit vectors on ``device``, of descriptors in any stored form."""
    compact = descriptors.dtype in (np.float16, np.uint8)
    values = expand(descriptors) if compact else np.asarray(descriptors, np.float32)
    shared = np.require(values, requirements=["C", "W"])  # torch takes no read-only memory
    return torch.from_numpy(shared).to(device)


def similarity_blocks(
    first: Tensor, second: Tensor, size: BlockSize | None = None
) -> Iterator[tuple[slice, slice, Tensor]]:
    """The table of similarities (N, M) of (N, D) and (M, D), cut into blocks.

    Yields the rows and the columns that a block stands for, and the block, which the caller may
    overwrite. Blocks come row by row, from the left. size: None for one that suits the device.
    """
    height, width = size or (CPU_BLOCK if first.device.type == "cpu" else GPU_BLOCK)
    for r in range(0, len(first), height):
        rows = slice(r, min(r + height, len(first)))
        for c in range(0, len(second), width):
            columns = slice(c, min(c + width, len(second)))
            yield rows, columns, first[rows] @ second[columns].T


@dataclass(frozen=True, slots=True, eq=False)
class Best:
    """The most similar found so far for each of N vectors.

    score: (N,) similarity, -inf where there is none yet. index: (N,) int64 which it is, -1 where
    there is none. runner_up: (N,) similarity of the second best, or None if it is not asked for.
    """

    score: Tensor
    index: Tensor
    runner_up: Tensor | None = None

    @classmethod
    def none(cls, count: int, device: torch.device, *, runner_up: bool = False) -> Best:
        """Nothing found yet."""
        lowest = torch.full((count,), -torch.inf, device=device)
        index = torch.full((count,), -1, dtype=torch.long, device=device)
        return cls(lowest, index, lowest.clone() if runner_up else None)

    def update(
        self, part: slice, score: Tensor, index: Tensor, runner_up: Tensor | None = None
    ) -> None:
        """Take in the best of a further block for the vectors ``part``.

        Nothing here waits for a GPU: control flow does not depend on values.
        """
        held = self.score[part]
        if self.runner_up is not None and runner_up is not None:
            loser = torch.minimum(held, score)
            second = torch.maximum(self.runner_up[part], torch.maximum(runner_up, loser))
            self.runner_up[part] = second
        # Strictly: of equal ones the earlier block keeps its place.
        self.index[part] = torch.where(score > held, index, self.index[part])
        self.score[part] = torch.maximum(held, score)


def nearest_both_ways(
    first: Tensor, second: Tensor, *, runner_up: bool = False, size: BlockSize | None = None
) -> tuple[Best, Best]:
    """The nearest row of ``second`` (M, D) to each of ``first`` (N, D), and the other way round.

    runner_up: find the similarities of the second nearest too. size: see `similarity_blocks`.
    """
    on_cpu = first.device.type == "cpu"
    if on_cpu and not runner_up and size is None and _rounding_pays(first, second):
        likely = likely_nearest(first, second)
        if likely is not None:
            return nearest_among(first, second, *likely)
    forward = Best.none(len(first), first.device, runner_up=runner_up)
    backward = Best.none(len(second), first.device, runner_up=runner_up)
    for rows, columns, block in similarity_blocks(first, second, size):
        sides = (1, forward, rows, columns), (0, backward, columns, rows)
        for dim, best, part, others in sides:
            score, index = largest(block, dim)
            lesser = _largest_but(block, dim, score, index) if runner_up else None
            best.update(part, score, index + others.start, lesser)
    return forward, backward


def _rounding_pays(first: Tensor, second: Tensor) -> bool:
    """Whether products in bfloat16 save more than deciding in float32 costs."""
    return first.numel() * len(second) >= MANY and bfloat16_is_fast()


def nearest_among(
    first: Tensor, second: Tensor, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> tuple[Best, Best]:
    """`nearest_both_ways` where (P,) ``rows`` and ``columns`` are the only pairs that come into
    question, in any order."""
    score = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), PAIRS):
        part = slice(start, start + PAIRS)
        i, j = torch.from_numpy(rows[part]), torch.from_numpy(columns[part])
        score[part] = torch.linalg.vecdot(first[i], second[j])
    sides = (first, rows, columns), (second, columns, rows)
    forward, backward = (Best.none(len(vectors), vectors.device) for vectors, _, _ in sides)
    for best, (_, of, to) in zip((forward, backward), sides, strict=True):
        order = np.lexsort((to, -score, of))
        own, foremost = np.unique(of[order], return_index=True)
        best.score[own] = torch.from_numpy(score[order[foremost]])
        best.index[own] = torch.from_numpy(to[order[foremost]])
    return forward, backward


def several_nearest_both_ways(
    first: Tensor, second: Tensor, count: int, *, size: BlockSize | None = None
) -> tuple[Several, Several]:
    """The ``count`` nearest rows of ``second`` to each of ``first``, and the other way round.

    Of equal similarities any may come first. size: see `similarity_blocks`.
    """
    forward = Several.none(len(first), count, first.device)
    backward = Several.none(len(second), count, first.device)
    for rows, columns, block in similarity_blocks(first, second, size):
        forward.update(rows, block, columns.start)
        backward.update(columns, block.T, rows.start)
    return forward, backward


@dataclass(frozen=True, slots=True, eq=False)
class Several:
    """The K most similar found so far for each of N vectors, the most similar first.

    score: (N, K) similarity, -inf where there are fewer. index: (N, K) int64 which they are, -1
    where there are none.
    """

    score: Tensor
    index: Tensor

    @classmethod
    def none(cls, rows: int, count: int, device: torch.device) -> Several:
        """Nothing found yet."""
        score = torch.full((rows, count), -torch.inf, device=device)
        return cls(score, torch.full((rows, count), -1, dtype=torch.long, device=device))

    def update(self, part: slice, block: Tensor, start: int) -> None:
        """Take in a block (n, C) for the vectors ``part``; ``start`` stands for its column 0."""
        count = self.score.shape[1]
        score, index = block.topk(min(count, block.shape[1]), dim=1)
        scores = torch.cat([self.score[part], score], dim=1)
        indices = torch.cat([self.index[part], index + start], dim=1)
        self.score[part], place = scores.topk(count, dim=1)
        self.index[part] = indices.gather(1, place)


def largest(block: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The largest value along ``dim`` of a (R, C) block, and where it first is.

    As `Tensor.max`, which on a CPU costs several times the product that made the block: torch has
    no vector code for a maximum with its place. numpy has, along rows; along columns the maximum
    alone is cheap, and its places are the few that equal it.
    """
    if block.device.type != "cpu":
        score, index = block.max(dim)
        return score, index
    table = block.numpy()
    if dim == 1:
        place = table.argmax(axis=1)
        top = table[np.arange(len(table)), place]
    else:
        top, place = table.max(axis=0), np.zeros(table.shape[1], np.int64)
        rows, columns = np.divmod(np.flatnonzero(table == top), table.shape[1])
        place[columns[::-1]] = rows[::-1]  # the last to be written is the first row
    return torch.from_numpy(top), torch.from_numpy(place)


def _largest_but(block: Tensor, dim: int, score: Tensor, index: Tensor) -> Tensor:
    """The largest value along ``dim`` beside the one at ``index``, which is ``score``."""
    place = index.unsqueeze(dim)
    block.scatter_(dim, place, -torch.inf)
    lesser = block.amax(dim)
    block.scatter_(dim, place, score.unsqueeze(dim))
    return lesser
