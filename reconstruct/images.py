"""Reading photos: whatever is stored, out comes uint8 RGB with the pixels as stored.

EXIF orientation is ignored, as in COLMAP's default: features and cameras then agree.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reconstruct.errors import ImageError
from reconstruct.geometry import fit_size
from reconstruct.types import ImageArray

Pixel = TypeVar("Pixel", np.uint8, np.float32)

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff"})
FOREIGN = frozenset({".avif", ".heic", ".heif", ".jxl", ".webp"})
"""Photos that COLMAP's own programs do not open, and so could not use the model of."""


def read_image(path: Path | str) -> ImageArray:
    """Read an image file as (H, W, 3) uint8 RGB.

    Grey is repeated over the channels, an alpha channel is dropped, CMYK is converted, 16-bit
    values keep their high byte. Truncated files are an error, never a half-grey picture.

    Raises ImageError with the file's name if it is missing, truncated, or not an image.
    """
    return decode_image(read_bytes(path), path)


def read_bytes(path: Path | str) -> bytes:
    """The bytes of a file. Raises ImageError naming it."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file") from error
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from error


def decode_image(data: bytes, path: Path | str) -> ImageArray:
    """`read_image` of bytes that were read from ``path``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # e.g. palette transparency, broken EXIF: not pixels
            with Image.open(io.BytesIO(data)) as image:
                image.load()
                return np.array(_to_rgb(image))  # a copy: Pillow's own memory is read-only
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: not a readable image ({error}); replace or remove it") from error


def _to_rgb(image: Image.Image) -> ImageArray:
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip at 255
        grey = np.asarray(image).astype(np.uint32)
        return np.repeat((grey >> 8).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range")
    return np.asarray(image.convert("RGB"))


def image_size(path: Path | str) -> tuple[int, int]:
    """(width, height) in pixels from the header alone. Raises ImageError."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: not a readable image ({error}); replace or remove it") from error


def to_grey(image: ImageArray) -> ImageArray:
    """(H, W) uint8 luma (ITU-R 601) of an RGB image."""
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def shrink(
    image: NDArray[Pixel], max_edge: int | None, max_sum_edges: int | None = None
) -> NDArray[Pixel]:
    """An image shrunk by area averaging: half-pixel alignment, no aliasing; never enlarged.

    Args:
        image: (H, W) or (H, W, C), uint8 or float32.
        max_edge: Largest number of pixels along the longer edge; None: any.
        max_sum_edges: Largest width + height; None: any.

    Returns:
        The image at the size that `reconstruct.geometry.fit_size` gives, contiguous in memory; the
        image itself where it is small enough.
    """
    size = (image.shape[1], image.shape[0])
    target = fit_size(size, max_edge, max_sum_edges)
    if target == size:
        return np.ascontiguousarray(image)
    return np.asarray(cv2.resize(image, target, interpolation=cv2.INTER_AREA), image.dtype)
