"""RootSIFT descriptors on a regular grid, from the valid pixels of an image only.

SIFT's histograms (Lowe, IJCV 2004): 4 x 4 bins of 8 orientations, bilinear in space and linear in
orientation, without the Gaussian window (as VLFeat's fast dense SIFT); RootSIFT as in Arandjelovic
and Zisserman (CVPR 2012).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from reconstruct.types import FloatArray

ORIENTATIONS, BINS = 8, 4

MAGNIFICATION = 6.0
"""Width of a bin divided by the sigma of the smoothing before gradients, as in VLFeat's PHOW:
otherwise noise of single pixels would outweigh large faint structures."""

WINDOW_BINS = 1.5
"""Sigma of SIFT's Gaussian window in bins, as VLFeat's PHOW."""


def normalise(grey: FloatArray, mask: NDArray[np.bool_]) -> FloatArray:
    """Mean 0 and deviation 1 over the valid pixels, 0 elsewhere: removes the exposure."""
    values = grey[mask]
    if not len(values):
        return np.zeros_like(grey)
    deviation = max(float(values.std()), 1e-6)
    return np.where(mask, (grey - float(values.mean())) / deviation, 0.0).astype(np.float32)


def dense_root_sift(
    grey: FloatArray,
    mask: NDArray[np.bool_],
    bin_px: int,
    step_px: int,
    min_contrast: float = 0.0,
) -> FloatArray:
    """Descriptors of a regular grid.

    A gradient counts only if all pixels that it is computed from are valid, so two images with one
    mask are described from the same pixels.

    Args:
        grey: (H, W).
        mask: (H, W), the valid pixels.
        bin_px: Width of a bin; a descriptor has 4 x 4.
        step_px: Distance between descriptors, as far as the centres of their bins are inside.
        min_contrast: Descriptors of less `contrast` are zero.

    Returns:
        (h, w, 128) unit descriptors; zero where there is no gradient, or too little.
    """
    pooled = _pooled(_orientation_maps(_smoothed(grey, mask, bin_px / MAGNIFICATION), mask), bin_px)
    bins = _bins(pooled, bin_px, step_px)  # (h, w, 4, 4, 8)
    flat = bins.reshape(*bins.shape[:2], -1)
    total = np.maximum(flat.sum(axis=2, keepdims=True), 1e-9)
    found = np.asarray(np.sqrt(flat / total), np.float32)
    found[contrast(bins, bin_px) < min_contrast] = 0.0
    return found


def contrast(bins: FloatArray, bin_px: int) -> FloatArray:
    """(h, w) contrast of (h, w, 4, 4, 8) bins, in VLFeat's unit: gradient a pixel (vl/dsift.c).

    The mass of the histogram by the area between the outermost bins' centres. Its bins are weighted
    by the mean of a Gaussian over each, of sigma 1.5 bins, and have windows of height 1, where
    `_pooled` has a sum of 1.
    """
    offsets = np.arange(1 - bin_px, bin_px)
    centres = bin_px * (np.arange(BINS) - 0.5 * (BINS - 1))
    z = (offsets - centres[:, None]) / (WINDOW_BINS * bin_px)
    window = np.exp(-0.5 * z**2).mean(axis=1) * bin_px
    edge_px = bin_px * (BINS - 1) + 1
    mass = np.einsum("hwyxo,y,x->hw", bins, window, window)
    return np.asarray(mass / edge_px**2, np.float32)


def support(mask: NDArray[np.bool_], bin_px: int, step_px: int) -> FloatArray:
    """(h, w) share of valid pixels under each descriptor of the grid."""
    counted = _pooled(mask[..., None].astype(np.float32), bin_px)
    return np.asarray(_bins(counted, bin_px, step_px).mean(axis=(2, 3, 4)))


def _smoothed(grey: FloatArray, mask: NDArray[np.bool_], sigma: float) -> FloatArray:
    """Gaussian mean of the valid pixels around each one."""
    valid = mask.astype(np.float32)
    total, weight = (cv2.GaussianBlur(v, (0, 0), sigma) for v in (grey * valid, valid))
    return np.asarray(total / np.maximum(weight, 1e-6), np.float32)


def _orientation_maps(grey: FloatArray, mask: NDArray[np.bool_]) -> FloatArray:
    """(H, W, 8): gradient magnitude, shared between the two nearest orientations."""
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8))
    padded = np.pad(grey, 1, mode="edge")
    dx = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2
    dy = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2
    magnitude, angle = cv2.cartToPolar(dx, dy)  # 0 to 2 pi
    turn = np.asarray(angle) * (ORIENTATIONS / (2 * np.pi))
    low = np.floor(turn)
    share = turn - low
    magnitude = np.asarray(magnitude) * inner
    maps = np.zeros((grey.size, ORIENTATIONS), np.float32)
    pixel, first = np.arange(grey.size), low.astype(np.int64).ravel() % ORIENTATIONS
    maps[pixel, first] = ((1 - share) * magnitude).ravel()
    maps[pixel, (first + 1) % ORIENTATIONS] = (share * magnitude).ravel()
    return maps.reshape(*grey.shape, ORIENTATIONS)


def _pooled(maps: FloatArray, bin_px: int) -> FloatArray:
    """(H, W, C) maps smoothed by the bilinear window of a bin, whose weights sum to 1."""
    window = (bin_px - np.abs(np.arange(1 - bin_px, bin_px))).astype(np.float32)
    window /= window.sum()
    border = cv2.BORDER_CONSTANT
    pooled = np.asarray(cv2.sepFilter2D(maps, -1, window, window, borderType=border), np.float32)
    return pooled.reshape(maps.shape)  # OpenCV drops an axis of one channel


def _bins(maps: FloatArray, bin_px: int, step_px: int) -> FloatArray:
    """(h, w, 4, 4, C) values at the bin centres of every descriptor that fits inside."""
    reach = (BINS - 1) * bin_px
    rows = np.arange(0, maps.shape[0] - reach, step_px)
    columns = np.arange(0, maps.shape[1] - reach, step_px)
    offsets = np.arange(BINS) * bin_px
    at_rows = (rows[:, None] + offsets)[:, None, :, None]
    at_columns = (columns[:, None] + offsets)[None, :, None, :]
    return np.asarray(maps[at_rows, at_columns])
