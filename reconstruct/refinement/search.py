"""Where a patch of one photo lies in another, by search in maps of a network.

Lucas-Kanade alignment needs a start within a few pixels and surroundings of the same brightness.
Where these are missing, as between day and night, the maps are compared at all shifts of a window
instead, first coarse, then fine:

    similarity(d) = sum over u of w(u) template(u) . source(center + A (u + d))

divided by the lengths of both patches, for shifts d of the template's cells; a parabola through the
largest and its neighbours gives the part below a cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from reconstruct.lazy import lazily
from reconstruct.refinement.alignment import Warp
from reconstruct.refinement.patches import window

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import functional as F
else:
    torch = lazily("torch")
    F = lazily("torch.nn.functional")

STEPS: Final = ((1, 6, 3), (0, 8, 2))
"""(level of the maps, radius of the patch, largest shift), both in cells of that level: patches of
48 and 32 pixels, shifts of 12 and 4, where a cell of level 0 has 2 x 2 pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where M patches were found.

    Attributes:
        center: (M, 2) cells of the source's level 0.
        similarity: (M,) cosine of the two patches, the smaller one of both steps; -1 where the best
            shift of one is the largest that was tried.
    """

    center: Tensor
    similarity: Tensor


def search(
    template: tuple[Tensor, ...], positions: Tensor, source: tuple[Tensor, ...], warp: Warp
) -> Found:
    """Find the patches of ``template`` in ``source``.

    Args:
        template: (C, H_l, W_l) float32 maps, each level half the size of the one before.
        positions: (M, 2) centres of the patches, in cells of level 0.
        source: Maps likewise, of which level 0 shows patches about as large as the template's.
        warp: Where the search starts, in cells of the source's level 0.
    """
    center = warp.center
    similarity = torch.full_like(center[:, 0], 1.0)
    for wanted, radius, reach in STEPS:
        level = min(wanted, len(template) - 1, len(source) - 1)
        cells = 2**level
        start = Warp(center=center / cells, affinity=warp.affinity)
        table = _similarities(
            template[level], positions / cells, source[level], start, radius, reach
        )
        shift, largest = _peak(table)
        similarity = torch.minimum(similarity, largest)
        moved = (warp.affinity @ shift[..., None])[..., 0]
        center = center + cells * moved
    return Found(center=center, similarity=similarity)


def _similarities(
    template: Tensor, positions: Tensor, source: Tensor, warp: Warp, radius: int, reach: int
) -> Tensor:
    """(M, D, D) similarities at the D x D shifts of up to ``reach`` cells, y before x."""
    offsets, weights = window(radius, template.device)
    weights = weights / weights.sum()
    wide, _ = window(radius + reach, template.device)
    patches = _sample(template, positions[:, None] + offsets)
    around = _sample(source, warp.positions(wide))
    count, channels, _ = patches.shape
    edge, width = 2 * radius + 1, 2 * (radius + reach) + 1
    products = F.conv2d(
        around.reshape(1, count * channels, width, width),
        (patches * weights).reshape(count, channels, edge, edge),
        groups=count,
    )[0]
    power = (patches.square().sum(1) * weights).sum(1)
    powers = F.conv2d(
        around.square().sum(1).reshape(count, 1, width, width), weights.reshape(1, 1, edge, edge)
    )[:, 0]
    return products / (power[:, None, None] * powers).sqrt().clamp(min=1e-6)


def _sample(maps: Tensor, positions: Tensor) -> Tensor:
    """(M, C, P) bilinear interpolation of (C, H, W) maps at (M, P, 2) positions in cells; outside
    of them the nearest cell."""
    size = torch.tensor([maps.shape[2], maps.shape[1]], device=maps.device)
    grid = positions * (2.0 / size) - 1.0
    values = F.grid_sample(maps[None], grid[None], padding_mode="border", align_corners=False)
    return values[0].transpose(0, 1).contiguous()


def _peak(table: Tensor) -> tuple[Tensor, Tensor]:
    """(M, 2) shifts, x then y, of the largest similarities, and these; -1 at the largest shift,
    where nothing says that it is a peak."""
    count, edge, _ = table.shape
    reach = edge // 2
    largest, place = table.flatten(1).max(1)
    y, x = place // edge, place % edge
    rim = (x == 0) | (x == edge - 1) | (y == 0) | (y == edge - 1)
    rows = torch.arange(count, device=table.device)

    def beside(dy: int, dx: int) -> Tensor:
        return table[rows, (y + dy).clamp(0, edge - 1), (x + dx).clamp(0, edge - 1)]

    def vertex(before: Tensor, after: Tensor) -> Tensor:
        bend = (before - 2 * largest + after).clamp(max=-1e-9)
        return torch.where(rim, 0.0, (0.5 * (before - after) / bend).clamp(-0.5, 0.5))

    dx = x - reach + vertex(beside(0, -1), beside(0, 1))
    dy = y - reach + vertex(beside(-1, 0), beside(1, 0))
    return torch.stack([dx, dy], dim=1), torch.where(rim, -1.0, largest)
