"""Coarse-to-fine matching of two grids of descriptors, as InLoc's dense matching.

Mutual nearest neighbours are sought among coarse cells (blocks of the grid, averaged); a match of
two blocks is then refined: mutual nearest neighbours among the cells of the one block and those of
the other with a margin. Memory is bounded by a chunk of blocks; the full table of all cells
against all, (19,000)^2 at 640 x 480, is never made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from reconstruct.lazy import lazily
from reconstruct.matching import MatcherConfig
from reconstruct.matching.nearest import nearest_both_ways, unit_vectors
from reconstruct.torch_device import resolve_device
from reconstruct.types import LocalFeatures, Matches

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import functional as F
else:
    torch = lazily("torch")
    F = lazily("torch.nn.functional")

CHUNK = 64
"""Blocks refined at once: some 50 MB at 512 channels."""


class DenseMatcherConfig(MatcherConfig):
    """Coarse to fine, of grids of descriptors (``extract.local: {name: grid}``)."""

    method: Literal["dense"]
    coarse: int = Field(4, ge=1)
    """Cells a side of the blocks whose mutual nearest neighbours are refined."""
    margin: int = Field(2, ge=0)
    """Cells around a matching block that are looked at too."""
    min_score: float | None = Field(None, ge=-1, le=1)
    """Keep a match only if the cosine of its descriptors is at least this."""

    def identity(self) -> dict[str, Any]:
        """The same as when all matchers shared one section, so that older matches stay valid."""
        return {**super().identity(), "ratio": None}


@dataclass(frozen=True, slots=True, eq=False)
class CellGrid:
    """A grid of descriptors and its blocks.

    cells: (rows * columns, C) unit descriptors, row by row. shape: (rows, columns). blocks: (B, C)
    unit means of the blocks, row by row; what is less than a block at the right and lower edge is
    left out. across: how many blocks stand side by side.
    """

    cells: Tensor
    shape: tuple[int, int]
    blocks: Tensor
    across: int

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return self.cells.nbytes + self.blocks.nbytes


class Dense:
    """See `reconstruct.matching.Matcher`; a prepared image is a `CellGrid`."""

    reads = ("keypoints", "descriptors")

    def __init__(self, config: DenseMatcherConfig, *, device: str = "auto") -> None:
        self.config = config
        self.device = device

    def identity(self) -> dict[str, Any]:
        """The settings."""
        return self.config.identity()

    def prepare(self, features: LocalFeatures) -> CellGrid:
        """Raises ValueError if the keypoints are not on a grid."""
        cells = unit_vectors(features.descriptors, resolve_device(self.device))
        return make_grid(cells, grid_shape(features.keypoints), self.config.coarse)

    def match(self, first: CellGrid, second: CellGrid) -> Matches:
        """Matching cells; scores are cosines."""
        config = self.config
        return match_grids(
            first, second, coarse=config.coarse, margin=config.margin, min_score=config.min_score
        )


def grid_shape(keypoints: NDArray[np.floating]) -> tuple[int, int]:
    """(rows, columns) of keypoints (N, 2) that stand row by row on a regular grid.

    Raises ValueError if they do not.
    """
    if not len(keypoints):
        return 0, 0
    columns = int(np.argmax(keypoints[:, 1] != keypoints[0, 1])) or len(keypoints)
    rows, rest = divmod(len(keypoints), columns)
    regular = not rest and all(
        np.array_equal(keypoints[r * columns : (r + 1) * columns, 0], keypoints[:columns, 0])
        for r in (0, rows - 1)
    )
    if not regular:
        raise ValueError("expected keypoints on a grid, row by row (extract.local: {name: grid})")
    return rows, columns


def make_grid(cells: Tensor, shape: tuple[int, int], coarse: int) -> CellGrid:
    """A grid of ``shape`` with blocks of ``coarse`` cells a side. cells: see `CellGrid`."""
    if min(shape) < coarse:
        return CellGrid(cells, shape, cells[:0], 0)
    pooled = F.avg_pool2d(cells.view(*shape, -1).permute(2, 0, 1), coarse)
    blocks = F.normalize(pooled.flatten(1).T, dim=1).contiguous()
    return CellGrid(cells, shape, blocks, pooled.shape[2])


def match_grids(
    first: CellGrid, second: CellGrid, *, coarse: int, margin: int, min_score: float | None = None
) -> Matches:
    """Matching cells, each at most once on each side.

    Args:
        first: with blocks of ``coarse`` cells a side.
        second: likewise.
        coarse: cells a side of a block.
        margin: cells around a block of the second grid that may be matched too.
        min_score: least cosine.
    """
    if not len(first.blocks) or not len(second.blocks):
        return Matches.empty()
    forward, backward = (best.index for best in nearest_both_ways(first.blocks, second.blocks))
    number = torch.arange(len(first.blocks), device=forward.device)
    parts = []
    for chunk in torch.split(number[backward[forward] == number], CHUNK):
        cells0, _ = _cells(chunk, first.across, first.shape, coarse, 0)
        cells1, inside = _cells(forward[chunk], second.across, second.shape, coarse, margin)
        parts.append(_refine(first.cells, second.cells, cells0, cells1, inside))
    rows, scores = (torch.cat(values) for values in zip(*parts, strict=True))
    keep = torch.isfinite(scores)
    if min_score is not None:
        keep &= scores >= min_score
    return _unique_targets(rows[keep].cpu().numpy(), scores[keep].cpu().numpy())


def _cells(
    blocks: Tensor, across: int, shape: tuple[int, int], coarse: int, margin: int
) -> tuple[Tensor, Tensor]:
    """(B, n) indices of the cells of blocks, with a margin, and whether they lie in the grid."""
    offset = torch.arange(-margin, coarse + margin, device=blocks.device)
    rows = (blocks // across * coarse)[:, None, None] + offset[:, None]
    columns = (blocks % across * coarse)[:, None, None] + offset
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    index = rows.clamp(0, shape[0] - 1) * shape[1] + columns.clamp(0, shape[1] - 1)
    return index.flatten(1), inside.flatten(1)


def _refine(
    first: Tensor, second: Tensor, cells0: Tensor, cells1: Tensor, inside: Tensor
) -> tuple[Tensor, Tensor]:
    """The nearest cell to each cell within each pair of blocks, (M, 2), and (M,) cosines, -inf
    where the two are not mutual nearest neighbours."""
    table = torch.einsum("bic,bjc->bij", first[cells0], second[cells1])
    table.masked_fill_(~inside[:, None], -torch.inf)
    score, forward = table.max(dim=2)
    backward = table.argmax(dim=1)
    number = torch.arange(cells0.shape[1], device=first.device)
    mutual = backward.gather(1, forward) == number
    pairs = torch.stack([cells0, cells1.gather(1, forward)], dim=2)
    return pairs.flatten(0, 1), torch.where(mutual, score, -torch.inf).flatten()


def _unique_targets(rows: NDArray[np.int64], scores: NDArray[np.float32]) -> Matches:
    """The best match of each cell of the second grid: as blocks overlap, it may have several."""
    order = np.lexsort((rows[:, 0], -scores))
    _, firsts = np.unique(rows[order, 1], return_index=True)
    kept = order[firsts]
    kept = kept[np.argsort(rows[kept, 0], kind="stable")]
    return Matches(indices=rows[kept].astype(np.uint32), scores=scores[kept])
