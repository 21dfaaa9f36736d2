"""Pictures between their pixels, alike with every version of OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
from scipy import ndimage

from reconstruct.types import FloatArray, ImageArray

EXACT_REMAP = int(cv2.__version__.split(".")[0]) >= 5
"""OpenCV 4 samples at whole 32nds of a pixel, which moves poses by half a degree."""


def bilinear(picture: ImageArray, x: FloatArray, y: FloatArray) -> ImageArray:
    """(H, W, C) uint8: the (h, w, C) uint8 picture at the indices (x, y), each (H, W) float32.

    Indices count from the middle of the first pixel; outside of the picture its border counts.
    """
    if EXACT_REMAP:
        found = cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(found, np.uint8).reshape(*x.shape, picture.shape[2])
    channels = [
        ndimage.map_coordinates(picture[..., c], (y, x), np.float32, order=1, mode="nearest")
        for c in range(picture.shape[2])
    ]
    return np.asarray(np.rint(np.stack(channels, -1)), np.uint8)
