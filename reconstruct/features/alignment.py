"""How images, maps and positions of different sizes correspond: two conventions.

`HalfPixel` (``cell_center="corrected"``) treats pixels and cells as areas: a resized image covers
the same scene from corner to corner, and cell p is centred at 4 p + 3.5 (with the first pixel's
centre at 0), that is 4 (p + 1) in COLMAP pixels: two max pools give 4 p + 1.5, and the average pool
of stride 1 averages cells p and p + 1, 2 pixels more.

`Corners` (``cell_center="release"``) does what the authors' release does: the centres of corner
pixels and cells coincide (align_corners=True), while positions scale by the ratio of the sizes, and
cell p is put at 4 p + 1.5. Its keypoints are up to 2 px off, differently at each scale.
"""

from __future__ import annotations

from typing import Final, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from reconstruct.features.vgg import STRIDE_PX

Size = tuple[int, int]
"""(height, width)."""

_CHANNELS: Final = 64
_ROWS: Final = 8
"""Rows of a map that are interpolated at once: they bound the memory used beside the maps."""


class Alignment(Protocol):
    """A convention. Sizes are (height, width) of images; maps are (B, C, h, w)."""

    def resize(self, images: Tensor, size: Size) -> Tensor:
        """Resize (B, 3, H, W) float images."""

    def add_coarser(self, fine: Tensor, coarse: Tensor, fine_size: Size, coarse_size: Size) -> None:
        """Add the map of a coarser level, interpolated, to ``fine`` in place.

        Args:
            fine: (B, C, h, w) map to add to.
            coarse: (B, C, h', w') map of the coarser level.
            fine_size: Size of the image that ``fine`` is the map of.
            coarse_size: Size of the image that ``coarse`` is the map of.
        """

    def carry(self, coarse: Tensor, fine_map: Size, fine_size: Size, coarse_size: Size) -> Tensor:
        """Transfer a boolean map to a finer level, by the nearest cell.

        Args:
            coarse: (B, h', w') bool map of the coarser level.
            fine_map: Size of the finer map, in cells.
            fine_size: Size of the finer level's image.
            coarse_size: Size of the coarser level's image.

        Returns:
            (B, h, w) bool.
        """

    def to_input(self, cells: Tensor, level_size: Size, input_size: Size) -> Tensor:
        """Positions of cells in the network input.

        Args:
            cells: (N, 2) row and column of cells in a level's map.
            level_size: Size of the level's image.
            input_size: Size of the network input.

        Returns:
            (N, 2) x and y in COLMAP pixels of the network input.
        """


class HalfPixel:
    """Resized images cover the same scene from corner to corner; see the module."""

    def resize(self, images: Tensor, size: Size) -> Tensor:
        """See `Alignment.resize`; antialiased if the images become smaller."""
        if images.shape[-2:] == size:
            return images
        return F.interpolate(
            images, size, mode="bilinear", align_corners=False, antialias=_shrinks(images, size)
        )

    def add_coarser(self, fine: Tensor, coarse: Tensor, fine_size: Size, coarse_size: Size) -> None:
        """See `Alignment.add_coarser`."""
        rows = _coarse_positions(fine.shape[2], coarse.shape[2], fine_size[0], coarse_size[0])
        columns = _coarse_positions(fine.shape[3], coarse.shape[3], fine_size[1], coarse_size[1])
        _add_interpolated(fine, coarse, rows, columns)

    def carry(self, coarse: Tensor, fine_map: Size, fine_size: Size, coarse_size: Size) -> Tensor:
        """See `Alignment.carry`."""
        nearest = []
        for axis in (0, 1):
            cells = coarse.shape[1 + axis]
            at = _coarse_positions(fine_map[axis], cells, fine_size[axis], coarse_size[axis])
            # At twice the size every other cell lies half way between two coarse ones. Always
            # the same of the two, or the banned blocks would alternate between 1 and 3 cells.
            nearest.append((at + 0.5 + 1e-6).floor().long().clamp_(max=cells - 1))
        return coarse[:, nearest[0].to(coarse.device)[:, None], nearest[1].to(coarse.device)]

    def to_input(self, cells: Tensor, level_size: Size, input_size: Size) -> Tensor:
        """See `Alignment.to_input`."""
        # 4 p + 3.5 counts from the centre of the first pixel; COLMAP's origin is its corner.
        yx = STRIDE_PX * cells.cpu().double() + (3.5 + 0.5)  # Apple's GPUs have no float64
        return (yx * _ratio(input_size, level_size)).flip(1)


class Corners:
    """Positions as in the authors' release; see the module."""

    def resize(self, images: Tensor, size: Size) -> Tensor:
        """See `Alignment.resize`."""
        if images.shape[-2:] == size:
            return images
        return F.interpolate(images, size, mode="bilinear", align_corners=True)

    def add_coarser(self, fine: Tensor, coarse: Tensor, fine_size: Size, coarse_size: Size) -> None:
        """See `Alignment.add_coarser`."""
        rows, columns = (
            torch.linspace(0, coarse.shape[axis] - 1, fine.shape[axis], dtype=torch.float64)
            for axis in (2, 3)
        )
        _add_interpolated(fine, coarse, rows, columns)

    def carry(self, coarse: Tensor, fine_map: Size, fine_size: Size, coarse_size: Size) -> Tensor:
        """See `Alignment.carry`."""
        return F.interpolate(coarse[:, None].float(), fine_map, mode="nearest")[:, 0].bool()

    def to_input(self, cells: Tensor, level_size: Size, input_size: Size) -> Tensor:
        """See `Alignment.to_input`."""
        # The release scales positions that count from the first pixel's centre; only then the
        # 0.5 to COLMAP's origin, so that a keypoint is the release's plus (0.5, 0.5).
        yx = (STRIDE_PX * cells.cpu().double() + 1.5) * _ratio(input_size, level_size)
        return (yx + 0.5).flip(1)


def _shrinks(images: Tensor, size: Size) -> bool:
    return size[0] < images.shape[-2] or size[1] < images.shape[-1]


def _ratio(target: Size, source: Size) -> Tensor:
    return torch.tensor(target, dtype=torch.float64) / torch.tensor(source, dtype=torch.float64)


def _coarse_positions(fine_cells: int, coarse_cells: int, fine_px: int, coarse_px: int) -> Tensor:
    """(fine_cells,) float64: the fractional coarse cell at the same point of the scene as each fine
    cell.

    Cell p is at 4 (p + 1) in COLMAP pixels, which scale by the ratio of the image sizes. Cells
    beyond the coarse map take its border.
    """
    at = (torch.arange(fine_cells, dtype=torch.float64) + 1) * (coarse_px / fine_px) - 1
    return at.clamp_(0, coarse_cells - 1)


def _add_interpolated(fine: Tensor, coarse: Tensor, rows: Tensor, columns: Tensor) -> None:
    """fine[b, c, i, j] += coarse at (rows[i], columns[j]), bilinear, a few rows at a time.

    Each memory layout is traversed in its order: the other order costs as much as a fifth of the
    network.
    """
    if fine.stride(1) == 1 and coarse.stride(1) == 1:
        for target, source in zip(fine, coarse, strict=True):
            _add_rows(target.permute(1, 2, 0), source.permute(1, 2, 0), rows, columns)
        return
    grid = torch.stack(
        torch.meshgrid(
            _unit(columns, coarse.shape[3]), _unit(rows, coarse.shape[2]), indexing="xy"
        ),
        dim=2,
    ).to(fine)
    grid = grid.expand(len(fine), *grid.shape)
    for start in range(0, fine.shape[1], _CHANNELS):
        part = slice(start, start + _CHANNELS)
        fine[:, part] += F.grid_sample(
            coarse[:, part], grid, padding_mode="border", align_corners=True
        )


def _add_rows(fine: Tensor, coarse: Tensor, rows: Tensor, columns: Tensor) -> None:
    """The same for (h, w, C) maps that are in memory in this order."""
    left, right, across = _corners(columns, fine)
    for start in range(0, len(rows), _ROWS):
        top, bottom, down = _corners(rows[start : start + _ROWS], fine)
        strip = torch.lerp(coarse[top], coarse[bottom], down[:, None, None])
        # Flat positions: an index along the first axis copies whole cells at once.
        offsets = strip.shape[1] * torch.arange(len(strip), device=fine.device)[:, None]
        cells = strip.flatten(0, 1)
        fine[start : start + _ROWS] += torch.lerp(
            cells[offsets + left], cells[offsets + right], across[:, None]
        )


def _corners(positions: Tensor, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cells before and after (N,) positions, and the weight of the latter."""
    low = positions.floor()
    weight = (positions - low).to(like)
    return low.long().to(like.device), positions.ceil().long().to(like.device), weight


def _unit(positions: Tensor, cells: int) -> Tensor:
    """Cells -> the [-1, 1] of `grid_sample`, with the centres of the corner cells at the ends."""
    return positions * (2 / max(cells - 1, 1)) - 1
