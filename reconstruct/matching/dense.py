"""Coarse-to-fine matching of two grids of descriptors, as InLoc's dense matching.

Mutual nearest neighbours are sought among coarse cells (blocks of the grid, averaged); a match of
two blocks is then refined: mutual nearest neighbours among the cells of the one block and those of
the other with a margin. Memory is bounded by a chunk of blocks; the full table of all cells
against all, (19,000)^2 at 640 x 480, is never made.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

CHUNK = 64
"""Blocks refined at once: some 50 MB at 512 channels."""


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


def match_grids(
    first: Tensor,
    second: Tensor,
    shape0: tuple[int, int],
    shape1: tuple[int, int],
    *,
    coarse: int,
    margin: int,
    min_score: float | None = None,
) -> NDArray[np.uint32]:
    """(M, 2) indices of matching cells, sorted by the first; each cell at most once on each side.

    first, second: (rows * columns, C) unit descriptors, row by row, of grids of ``shape0`` and
    ``shape1``. coarse: cells a side of a block. margin: cells around a block of the second grid
    that may be matched too. min_score: least cosine.
    """
    if min(*shape0, *shape1) < coarse:
        return np.zeros((0, 2), np.uint32)
    blocks0, across0 = _blocks(first, shape0, coarse)
    blocks1, across1 = _blocks(second, shape1, coarse)
    forward, backward = _nearest(blocks0, blocks1)
    index = torch.arange(len(blocks0), device=first.device)
    mutual = index[backward[forward] == index]
    parts = []
    for chunk in torch.split(mutual, CHUNK):
        target = forward[chunk]
        cells0, _ = _cells(chunk, across0, shape0, coarse, 0)
        cells1, inside = _cells(target, across1, shape1, coarse, margin)
        parts.append(_refine(first, second, cells0, cells1, inside))
    if not parts:
        return np.zeros((0, 2), np.uint32)
    rows, scores = (torch.cat(values) for values in zip(*parts, strict=True))
    if min_score is not None:
        rows, scores = rows[scores >= min_score], scores[scores >= min_score]
    return _unique_targets(rows.cpu().numpy(), scores.cpu().numpy())


def _blocks(cells: Tensor, shape: tuple[int, int], coarse: int) -> tuple[Tensor, int]:
    """(B, C) unit descriptors of blocks, and how many stand side by side; the rest at the right
    and lower edge, less than a block, is left out."""
    grid = cells.view(*shape, -1).permute(2, 0, 1)
    pooled = F.avg_pool2d(grid, coarse)
    return F.normalize(pooled.flatten(1).T, dim=1).contiguous(), pooled.shape[2]


def _nearest(first: Tensor, second: Tensor, rows: int = 1024) -> tuple[Tensor, Tensor]:
    """Nearest of the other set for each row of the first and of the second."""
    forward, best, backward = [], None, None
    for start in range(0, len(first), rows):
        table = first[start : start + rows] @ second.T
        forward.append(table.argmax(dim=1))
        value, place = table.max(dim=0)
        if best is None or backward is None:
            best, backward = value, place
        else:
            better = value > best
            best, backward = (
                torch.where(better, value, best),
                torch.where(better, place + start, backward),
            )
    assert backward is not None  # no set is empty
    return torch.cat(forward), backward


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
    """(M, 2) mutual nearest neighbours of cells within each pair of blocks, and (M,) cosines."""
    table = torch.einsum("bic,bjc->bij", first[cells0], second[cells1])
    table.masked_fill_(~inside[:, None], -torch.inf)
    score, forward = table.max(dim=2)
    backward = table.argmax(dim=1)
    index = torch.arange(cells0.shape[1], device=first.device)
    mutual = backward.gather(1, forward) == index
    matched = torch.stack([cells0, cells1.gather(1, forward)], dim=2)
    return matched[mutual], score[mutual]


def _unique_targets(rows: NDArray[np.int64], scores: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Of matches with one cell of the second grid (blocks with margins overlap) the best."""
    order = np.lexsort((rows[:, 0], -scores))
    _, firsts = np.unique(rows[order, 1], return_index=True)
    kept = rows[order[firsts]]
    return kept[np.argsort(kept[:, 0], kind="stable")].astype(np.uint32)
