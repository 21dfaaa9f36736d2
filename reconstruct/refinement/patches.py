"""Image pyramids, and patches sampled from them under affine warps.

Positions are COLMAP pixels of the level that is sampled: (0, 0) is the outer corner of the first
pixel, so a position at level l is the one at level 0 divided by 2 ** l and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from reconstruct.geometry import fit_size
from reconstruct.images import shrink, to_grey
from reconstruct.types import ImageArray

BLUR_SIGMA_PX: Final = 0.7
"""Neighbouring pixels of a photo are interpolated better after a slight blur."""
CONTRAST_SIGMA_PX: Final = 3.0
"""Width of the neighbourhood in which brightness and contrast are evened out, on every level."""
NOISE: Final = 3.0
"""Contrast, in grey values, that is left small: noise must not become texture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pyramid:
    """Grey values of one photo, evened out in contrast, each level half the size of the one before.

    levels: float32 (1, H_l, W_l), zero mean and about unit deviation locally, level 0 first.
    scale: (2,) pixels of level 0 per pixel of the photo, x then y.
    """

    levels: tuple[Tensor, ...]
    scale: tuple[float, float]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of level 0 in pixels."""
        return self.levels[0].shape[-1], self.levels[0].shape[-2]

    @property
    def nbytes(self) -> int:
        """Memory that the levels take."""
        return sum(level.nbytes for level in self.levels)


def level0_scale(size: tuple[int, int], max_edge: int | None) -> tuple[float, float]:
    """Pixels of level 0 per pixel of a photo of ``size`` (width, height), along x and y."""
    fitted = fit_size(size, max_edge)
    return fitted[0] / size[0], fitted[1] / size[1]


def build_pyramid(
    image: ImageArray, max_edge: int | None, device: torch.device, min_edge: int = 64
) -> Pyramid:
    """The pyramid of a photo, uint8 (H, W, 3), shrunk to ``max_edge`` first.

    Levels are added while the shorter edge stays at ``min_edge`` or more.
    """
    height, width = image.shape[:2]
    grey: NDArray[Any] = shrink(to_grey(image).astype(np.float32), max_edge)
    grey = cv2.GaussianBlur(grey, (0, 0), BLUR_SIGMA_PX, borderType=cv2.BORDER_REPLICATE)
    levels = [torch.from_numpy(np.ascontiguousarray(grey)).to(device)[None]]
    while min(levels[-1].shape[-2:]) >= 2 * min_edge:
        levels.append(_halve(levels[-1]))
    even = tuple(_even_contrast(level) for level in levels)
    return Pyramid(levels=even, scale=level0_scale((width, height), max_edge))


def _even_contrast(level: Tensor) -> Tensor:
    """Local zero mean and unit deviation: shading and exposure differ between photos."""
    grey = level[0].cpu().numpy()
    detail = grey - cv2.GaussianBlur(grey, (0, 0), CONTRAST_SIGMA_PX)
    power = cv2.GaussianBlur(np.square(detail), (0, 0), CONTRAST_SIGMA_PX)
    even = np.asarray(detail / np.sqrt(power + NOISE**2), np.float32)
    return torch.from_numpy(even)[None].to(level.device)


def _halve(level: Tensor) -> Tensor:
    height, width = level.shape[-2:]
    # An odd edge repeats its last pixel: positions are then halved exactly.
    even = F.pad(level[None], (0, width % 2, 0, height % 2), mode="replicate")
    return F.avg_pool2d(even, 2)[0]


def window(radius: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Offsets (P, 2) of a square window in pixels, row by row, and Gaussian weights (P,).

    P = (2 radius + 1)^2; the weight at the middle of an edge is exp(-2).
    """
    steps = torch.arange(-radius, radius + 1, dtype=torch.float32, device=device)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    offsets = torch.stack([x, y], dim=-1).reshape(-1, 2)
    return offsets, torch.exp(-2.0 * offsets.square().sum(-1) / radius**2)


def sample(level: Tensor, positions: Tensor) -> Tensor:
    """(1, H, W) at (M, P, 2) COLMAP pixels, bilinear -> (M, P); outside: the nearest pixel."""
    height, width = level.shape[-2:]
    size = torch.tensor([width, height], dtype=positions.dtype, device=positions.device)
    # align_corners=False puts -1 and 1 on the outer corners of the image, as COLMAP does.
    grid = positions * (2.0 / size) - 1.0
    values = F.grid_sample(
        level[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False
    )
    return values[0, 0]


def inside(level: Tensor, positions: Tensor) -> Tensor:
    """(..., 2) COLMAP pixels -> (...) bool: between the centres of the first and last pixels."""
    height, width = level.shape[-2:]
    x, y = positions.unbind(-1)
    return (x >= 0.5) & (y >= 0.5) & (x <= width - 0.5) & (y <= height - 0.5)
