"""Photos small enough for a page, as ``data:`` addresses, within a budget of bytes."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from reconstruct.errors import ImageError
from reconstruct.images import read_image
from reconstruct.types import ImageArray

QUALITY = 72
SMALLEST_PX, LARGEST_PX = 48, 640
SHRINK = 0.8
BYTES_PER_PIXEL = 0.16
"""Of a JPEG of this quality, about; the loop below mends what it misses."""


def thumbnail(path: Path, budget: int) -> str | None:
    """A photo as JPEG of at most ``budget`` bytes (before base64), as large as that allows.

    None if it cannot be read, or if the budget is too small to show anything.
    """
    edge = min(LARGEST_PX, int(math.sqrt(budget / BYTES_PER_PIXEL)))
    try:
        image = _reduced(path, edge)
    except ImageError:
        return None
    while edge >= SMALLEST_PX:
        image.thumbnail((edge, edge))
        data = _jpeg(image)
        if len(data) <= budget:
            return data_url(data, "jpeg")
        edge = int(edge * SHRINK)
    return None


def _reduced(path: Path, edge: int) -> Image.Image:
    """The photo at a size not far above ``edge``; JPEGs are decoded at a fraction of theirs."""
    try:
        with Image.open(path) as image:
            if image.format == "JPEG" and image.mode in ("RGB", "L"):
                image.draft("RGB", (edge, edge))
                image.load()
                image.thumbnail((edge, edge))
                return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path}: not a readable image ({error})") from error
    return Image.fromarray(read_image(path))


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()


def patch(image: ImageArray, at: NDArray[Any], radius: int = 8, zoom: int = 6) -> str:
    """The square of ``2 radius + 1`` pixels around a position, enlarged, its centre marked.

    at: (2,) COLMAP pixels; between pixels the image is interpolated, so that the position is
    exactly in the middle.
    """
    side = (2 * radius + 1) * zoom
    start = np.asarray(at, np.float64) - 0.5 - radius - 0.5 + 0.5 / zoom  # OpenCV: centres at 0
    moved = np.array([[1 / zoom, 0, start[0]], [0, 1 / zoom, start[1]]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    square = cv2.warpAffine(
        image, moved, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return data_url(_jpeg(Image.fromarray(np.asarray(square, np.uint8))), "jpeg")


def png(pixels: NDArray[np.uint8]) -> str:
    """(H, W, 3 or 4) uint8 as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return data_url(buffer.getvalue(), "png")


def data_url(data: bytes, kind: str) -> str:
    """Bytes of a picture as an address that needs no server."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
