"""Images at the size that an extractor works on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from reconstruct.geometry import fit_size
from reconstruct.images import shrink
from reconstruct.types import ImageArray


@dataclass(frozen=True, slots=True, eq=False)
class ResizedImage:
    """An image as an extractor sees it.

    Attributes:
        pixels: (h, w) or (h, w, 3) uint8.
        original_size: (width, height) of the photo itself.
    """

    pixels: ImageArray
    original_size: tuple[int, int]

    @classmethod
    def shrunk(cls, image: ImageArray, max_edge: int | None) -> ResizedImage:
        """An image shrunk to a longest edge, see `reconstruct.images.shrink`."""
        return cls(shrink(image, max_edge), (image.shape[1], image.shape[0]))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of ``pixels``."""
        return self.pixels.shape

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of ``pixels``."""
        return self.pixels.shape[1], self.pixels.shape[0]

    @property
    def enlargement(self) -> float:
        """How many original pixels wide a pixel is."""
        return self.original_size[0] / self.size[0]


def shrink_as_release(
    image: ImageArray, max_edge: int | None, max_sum_edges: int | None
) -> ImageArray:
    """An image within two limits, shrunk as D2-Net's release does.

    That is Pillow's bilinear filter (behind scipy.misc.imresize), applied once for each limit.

    Args:
        image: (H, W, 3) uint8.
        max_edge: Limit on the longest edge in pixels; None: none.
        max_sum_edges: Limit on width + height in pixels; None: none.

    Returns:
        (h, w, 3) uint8.
    """
    for limits in ((max_edge, None), (None, max_sum_edges)):
        size = (image.shape[1], image.shape[0])
        target = fit_size(size, *limits)
        if target != size:
            resized = Image.fromarray(image).resize(target, Image.Resampling.BILINEAR)
            image = np.asarray(resized)
    return np.ascontiguousarray(image)
