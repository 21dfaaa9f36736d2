"""Image pyramids, and patches sampled from them under affine warps.

Positions are COLMAP pixels of the level that is sampled: (0, 0) is the outer corner of the first
pixel, so a position at level l is that at level 0 divided by 2 ** l, without any offset.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from reconstruct.geometry import fit_size
from reconstruct.images import shrink, to_grey
from reconstruct.lazy import lazily
from reconstruct.types import ImageArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import functional as F
else:
    torch = lazily("torch")
    F = lazily("torch.nn.functional")

BLUR_SIGMA_PX: Final = 0.7
"""A slight blur makes interpolation between the pixels of a photo more accurate."""
CONTRAST_SIGMA_PX: Final = 3.0
"""Width of the neighbourhood in which brightness and contrast are normalised, on every level."""
MAP_CELL_PX: Final = 2
"""Width of a cell of the maps, in pixels of level 0."""
MIN_MAP_EDGE: Final = 16
"""Shorter edge of the smallest level of the maps, in cells."""
NOISE: Final = 3.0
"""Contrast, in grey values, that is not amplified: noise must not become texture."""


@dataclass(frozen=True, kw_only=True)
class Pyramid:
    """Grey values of one photo, normalised in contrast, each level half the size of the one before.

    Attributes:
        levels: float32 (1, H_l, W_l), zero mean and about unit deviation locally, level 0 first.
        scale: Pixels of level 0 per pixel of the photo, x then y.
        maps: int8 (C, H_0 // 2, W_0 // 2), what a network says of every 2 x 2 pixels of level 0:
            127 times a unit vector. None where the settings ask for none.
    """

    levels: tuple[Tensor, ...]
    scale: tuple[float, float]
    maps: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of level 0 in pixels."""
        return self.levels[0].shape[-1], self.levels[0].shape[-2]

    @property
    def nbytes(self) -> int:
        """Memory of the levels in bytes, of as many `edges`, and of the maps."""
        maps = 0 if self.maps is None else self.maps.nbytes
        return 2 * sum(level.nbytes for level in self.levels) + maps

    @cached_property
    def edges(self) -> Pyramid:
        """How strong edges are: lengths of the gradients, on every level.

        Between day and night lamps and shadows turn bright to dark and back, but edges stay edges.
        """
        levels = tuple(_gradient_lengths(level) for level in self.levels)
        return Pyramid(levels=levels, scale=self.scale)

    def map_levels(self) -> tuple[Tensor, ...]:
        """The maps as float32, each level half the size of the one before; none without maps.

        They take four times the memory, so they are made for a pair and dropped after it.
        """
        if self.maps is None:
            return ()
        levels = [self.maps.float() / 127]
        while min(levels[-1].shape[-2:]) >= 2 * MIN_MAP_EDGE:
            levels.append(_halve(levels[-1]))
        return tuple(levels)


def level0_scale(size: tuple[int, int], max_edge: int | None) -> tuple[float, float]:
    """Pixels of level 0 per pixel of the photo, along x and y.

    Args:
        size: (width, height) of the photo.
        max_edge: Longest edge of level 0; None: that of the photo.
    """
    fitted = fit_size(size, max_edge)
    return fitted[0] / size[0], fitted[1] / size[1]


def build_pyramid(
    image: ImageArray,
    max_edge: int | None,
    device: torch.device,
    min_edge: int = 64,
    describe: Callable[[ImageArray], Tensor] | None = None,
) -> Pyramid:
    """The pyramid of a photo.

    Args:
        image: (H, W, 3) uint8.
        max_edge: The photo is shrunk to this longest edge first; None: never.
        device: Device of the levels.
        min_edge: Levels are added while the shorter edge stays at least this long.
        describe: (H, W, 3) uint8 -> `Pyramid.maps`, called with the shrunk photo; None: no maps.
    """
    height, width = image.shape[:2]
    grey: NDArray[Any] = shrink(to_grey(image).astype(np.float32), max_edge)
    grey = cv2.GaussianBlur(grey, (0, 0), BLUR_SIGMA_PX, borderType=cv2.BORDER_REPLICATE)
    levels = [torch.from_numpy(np.ascontiguousarray(grey)).to(device)[None]]
    while min(levels[-1].shape[-2:]) >= 2 * min_edge:
        levels.append(_halve(levels[-1]))
    even = tuple(_even_contrast(level) for level in levels)
    maps = None if describe is None else describe(shrink(image, max_edge))
    return Pyramid(levels=even, scale=level0_scale((width, height), max_edge), maps=maps)


def _even_contrast(level: Tensor) -> Tensor:
    """Normalise to zero mean and unit deviation locally: shading and exposure differ between
    photos."""
    grey = level[0].cpu().numpy()
    detail = grey - cv2.GaussianBlur(grey, (0, 0), CONTRAST_SIGMA_PX)
    power = cv2.GaussianBlur(np.square(detail), (0, 0), CONTRAST_SIGMA_PX)
    even = np.asarray(detail / np.sqrt(power + NOISE**2), np.float32)
    return torch.from_numpy(even)[None].to(level.device)


def _gradient_lengths(level: Tensor) -> Tensor:
    """Lengths of the gradients by Sobel's filter, in grey values per pixel."""
    grey = level[0].cpu().numpy()
    x, y = (cv2.Sobel(grey, cv2.CV_32F, i, 1 - i, scale=1 / 8) for i in (1, 0))
    return torch.from_numpy(np.hypot(x, y))[None].to(level.device)


def _halve(level: Tensor) -> Tensor:
    height, width = level.shape[-2:]
    # An odd edge repeats its last pixel: positions are then halved exactly.
    even = F.pad(level[None], (0, width % 2, 0, height % 2), mode="replicate")
    return F.avg_pool2d(even, 2)[0]


def window(radius: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A square window with Gaussian weights.

    Args:
        radius: In pixels; the weight at the middle of an edge is exp(-2).
        device: Device of the tensors.

    Returns:
        (P, 2) offsets in pixels, row by row, and (P,) weights, with P = (2 radius + 1)^2.
    """
    steps = torch.arange(-radius, radius + 1, dtype=torch.float32, device=device)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    offsets = torch.stack([x, y], dim=-1).reshape(-1, 2)
    return offsets, torch.exp(-2.0 * offsets.square().sum(-1) / radius**2)


def sample(level: Tensor, positions: Tensor) -> Tensor:
    """Bilinear interpolation of a level; outside of it the nearest pixel.

    Args:
        level: (1, H, W).
        positions: (M, P, 2) COLMAP pixels of the level.

    Returns:
        (M, P) values.
    """
    height, width = level.shape[-2:]
    size = torch.tensor([width, height], dtype=positions.dtype, device=positions.device)
    # align_corners=False puts -1 and 1 on the outer corners of the image, as COLMAP does.
    grid = positions * (2.0 / size) - 1.0
    values = F.grid_sample(
        level[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return values[0, 0]


def inside(level: Tensor, positions: Tensor) -> Tensor:
    """Which (..., 2) COLMAP pixels lie between the centres of the first and the last pixels."""
    height, width = level.shape[-2:]
    x, y = positions.unbind(-1)
    return (x >= 0.5) & (y >= 0.5) & (x <= width - 0.5) & (y <= height - 0.5)
