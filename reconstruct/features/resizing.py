"""Images at the size that an extractor works on."""

from __future__ import annotations

from dataclasses import dataclass

from reconstruct.images import shrink
from reconstruct.types import ImageArray


@dataclass(frozen=True, slots=True, eq=False)
class ResizedImage:
    """An image as an extractor sees it.

    Attributes:
        pixels: (h, w) or (h, w, 3) uint8.
        original_size: (width, height) before it was resized.
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
