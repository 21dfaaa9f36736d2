"""RootSIFT descriptors on a regular grid, of the valid pixels of a picture only.

SIFT's histograms (Lowe, IJCV 2004): 4 x 4 bins of 8 orientations, bilinear in space and linear in
orientation, without the Gaussian window (as VLFeat's fast dense SIFT); RootSIFT as Arandjelovic
and Zisserman (CVPR 2012).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from reconstruct.types import FloatArray

ORIENTATIONS, BINS = 8, 4


def normalise(grey: FloatArray, mask: NDArray[np.bool_]) -> FloatArray:
    """Mean 0 and deviation 1 over the valid pixels, 0 elsewhere: exposure does not count."""
    values = grey[mask]
    if not len(values):
        return np.zeros_like(grey)
    deviation = max(float(values.std()), 1e-6)
    return np.where(mask, (grey - float(values.mean())) / deviation, 0.0).astype(np.float32)


def dense_root_sift(grey: FloatArray, mask: NDArray[np.bool_], bin_px: int, step_px: int) -> Tensor:
    """(h, w, 128) unit descriptors of the grid of `support`; zero where no gradient is seen.

    grey: (H, W). mask: (H, W); a gradient counts only if all the pixels that it is taken from are
    valid, so two pictures with one mask are described from the same pixels.
    """
    gradients = _orientation_maps(torch.from_numpy(grey), torch.from_numpy(mask))
    pooled = _triangle(gradients, bin_px)
    grid = _bins(pooled, bin_px, step_px)  # (8, 4, 4, h, w)
    flat = grid.flatten(0, 2).permute(1, 2, 0)
    return (flat / flat.sum(dim=2, keepdim=True).clamp(min=1e-9)).sqrt()


def support(mask: NDArray[np.bool_], bin_px: int, step_px: int) -> FloatArray:
    """(h, w) share of valid pixels below each descriptor of the grid."""
    counted = torch.from_numpy(mask)[None].float()
    return _bins(_triangle(counted, bin_px), bin_px, step_px).mean(dim=(0, 1, 2)).numpy()


def _orientation_maps(grey: Tensor, mask: Tensor) -> Tensor:
    """(8, H, W): gradient magnitude, shared between the two nearest orientations."""
    inner = mask & ~F.max_pool2d((~mask)[None].float(), 3, 1, 1)[0].bool()
    padded = F.pad(grey[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    dx = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2
    dy = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2
    magnitude = torch.hypot(dx, dy) * inner
    turn = torch.atan2(dy, dx) * (ORIENTATIONS / (2 * math.pi)) % ORIENTATIONS
    centers = torch.arange(ORIENTATIONS).view(-1, 1, 1)
    distance = (turn - centers).abs()
    weight = (1 - torch.minimum(distance, ORIENTATIONS - distance)).clamp(min=0)
    return weight * magnitude


def _triangle(maps: Tensor, bin_px: int) -> Tensor:
    """Maps smoothed by the bilinear window of a bin; its weights sum to 1."""
    window = bin_px - torch.arange(1 - bin_px, bin_px).abs().float()
    window /= window.sum()
    x = F.conv2d(maps[:, None], window.view(1, 1, 1, -1), padding=(0, bin_px - 1))
    return F.conv2d(x, window.view(1, 1, -1, 1), padding=(bin_px - 1, 0))[:, 0]


def _bins(maps: Tensor, bin_px: int, step_px: int) -> Tensor:
    """(C, 4, 4, h, w): the values at the bins' centres of every descriptor that fits inside."""
    reach = (BINS - 1) * bin_px
    rows = torch.arange(0, maps.shape[1] - reach, step_px)
    columns = torch.arange(0, maps.shape[2] - reach, step_px)
    offsets = torch.arange(BINS) * bin_px
    at_rows = (rows[None] + offsets[:, None]).view(BINS, 1, -1, 1)
    at_columns = (columns[None] + offsets[:, None]).view(1, BINS, 1, -1)
    return maps[:, at_rows, at_columns]
