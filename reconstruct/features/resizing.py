"""An image at the size at which an extractor looks at it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from reconstruct.geometry import fit_size
from reconstruct.types import ImageArray


@dataclass(frozen=True, slots=True, eq=False)
class ResizedImage:
    """pixels: (h, w) or (h, w, 3) uint8. original_size: (width, height) before shrinking."""

    pixels: ImageArray
    original_size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the pixels."""
        return self.pixels.shape

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def enlargement(self) -> float:
        """Original pixels a pixel."""
        return self.original_size[0] / self.size[0]


def shrink(image: ImageArray, max_edge: int | None) -> ResizedImage:
    """Area averaging until the longest edge has at most ``max_edge`` pixels; never enlarged."""
    original = image.shape[1], image.shape[0]
    size = fit_size(original, max_edge, None)
    if size != original:
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    return ResizedImage(np.ascontiguousarray(image), original)
