"""Dominant gradient orientations of affine regions, and patches turned by them.

Regions are (N, 2, 2) matrices ``image_from_patch``: they take the unit circle to the ellipse of a
region. Orientations as in SIFT (Lowe, IJCV 2004, section 5): peaks of a histogram of gradients, all
that reach 80 % of the highest.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from reconstruct.geometry import Float64
from reconstruct.types import FloatArray, ImageArray

PATCH_PX = 41
"""Edge of a patch; the circle of a region has a radius of `RADIUS_PX` in it."""
RADIUS_PX = PATCH_PX // 2
BINS = 36
SMOOTHINGS = 6
PEAK = 0.8
MAX_ORIENTATIONS = 4
"""As VLFeat (vl/covdet.c): how often the histogram is averaged over three bins, the least peak as a
share of the highest, and how many peaks a region has at most."""


def sample_patches(grey: ImageArray, centres: Float64, image_from_patch: Float64) -> FloatArray:
    """(N, 41, 41) patches of a grey image, without aliasing, its border repeated.

    centres: (N, 2) pixels of which the first one's centre is (0, 0).
    """
    levels = [np.asarray(grey, np.float32)]
    while min(levels[-1].shape) > 8:
        levels.append(np.asarray(cv2.pyrDown(levels[-1]), np.float32))
    # Pixels of the image a pixel of the patch, along the longer axis of the ellipse.
    step = np.linalg.norm(image_from_patch, 2, axis=(1, 2)) / RADIUS_PX
    chosen = np.floor(np.log2(np.maximum(step, 1.0))).astype(int).clip(0, len(levels) - 1)
    patches = np.empty((len(centres), PATCH_PX, PATCH_PX), np.float32)
    for i, level in enumerate(chosen):
        # pyrDown keeps every other pixel: pixel (x, y) of a level is (2 x, 2 y) of the one before.
        scale = 0.5**level
        matrix = image_from_patch[i] * (scale / RADIUS_PX)
        offset = centres[i] * scale - matrix @ [RADIUS_PX, RADIUS_PX]
        patches[i] = cv2.warpAffine(
            levels[level],
            np.column_stack([matrix, offset]),
            (PATCH_PX, PATCH_PX),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    return patches


def dominant_orientations(patches: FloatArray) -> tuple[NDArray[np.int64], Float64]:
    """(K,) patch and (K,) angle in radians of each dominant orientation, x towards y.

    In the order of patches, the highest peak first. A patch without a gradient has angle 0.
    """
    histogram = _histogram(patches)
    left, right = np.roll(histogram, 1, axis=1), np.roll(histogram, -1, axis=1)
    highest = histogram.max(axis=1, keepdims=True, initial=0.0)
    peak = (histogram > left) & (histogram >= right) & (histogram >= PEAK * highest)
    peak[(highest <= 0)[:, 0], 0] = True
    ranked = np.argsort(-np.where(peak, histogram, -1.0), axis=1, kind="stable")
    ranked = ranked[:, :MAX_ORIENTATIONS]
    kept = np.take_along_axis(peak, ranked, axis=1)
    patch, column = np.nonzero(kept)
    bin_ = ranked[patch, column]
    before, at, after = (values[patch, bin_] for values in (left, histogram, right))
    curvature = before - 2 * at + after
    # The top of the parabola through three bins.
    offset = np.divide(0.5 * (before - after), curvature, where=curvature < 0, out=0 * at)
    return patch, np.where(highest[patch, 0] > 0, (bin_ + offset) * (2 * np.pi / BINS), 0.0)


def turned(image_from_patch: Float64, angle: Float64) -> Float64:
    """(N, 2, 2) regions whose x axis points along ``angle`` of the regions given."""
    cos, sin = np.cos(angle), np.sin(angle)
    rotation = np.stack([np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], axis=1)
    return np.asarray(image_from_patch @ rotation)


def _histogram(patches: FloatArray) -> Float64:
    """(N, 36) gradient by orientation, under a Gaussian window, smoothed."""
    dy, dx = np.gradient(patches, axis=(1, 2)) if len(patches) else (patches, patches)
    rows, columns = np.mgrid[:PATCH_PX, :PATCH_PX] - RADIUS_PX
    window = np.exp(-(rows**2 + columns**2) / (2 * (RADIUS_PX / 2) ** 2))
    window[rows**2 + columns**2 > RADIUS_PX**2] = 0.0  # a circle, whichever way it is turned
    weight = (np.hypot(dx, dy) * window).reshape(len(patches), PATCH_PX**2)
    place = (np.arctan2(dy, dx) * (BINS / (2 * np.pi))).reshape(weight.shape) % BINS
    low = np.floor(place)
    share = place - low
    found = np.zeros((len(patches), BINS))
    row = np.broadcast_to(np.arange(len(patches))[:, None], weight.shape)
    for bin_, part in ((low, 1 - share), (low + 1, share)):
        np.add.at(found, (row, bin_.astype(np.int64) % BINS), weight * part)
    for _ in range(SMOOTHINGS):
        found = (np.roll(found, 1, axis=1) + found + np.roll(found, -1, axis=1)) / 3
    return found
