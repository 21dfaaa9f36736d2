"""Reading photos: whatever is stored, out comes uint8 RGB with the pixels as stored.

A file's content decides what it is, not its name: only formats that COLMAP's own programs open too
are read, so that a finished model can be used with them.

Pixels are never turned here, whatever the EXIF orientation says: keypoints, cameras and COLMAP all
refer to the stored picture. `exif_orientation` tells what a viewer would do, and
`reconstruct.orientation` does it for a network that needs upright photos.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import error as StructError
from typing import BinaryIO, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from reconstruct.errors import ImageError
from reconstruct.files import open_regular, read_bytes
from reconstruct.geometry import fit_size
from reconstruct.types import ImageArray

Pixel = TypeVar("Pixel", np.uint8, np.float32)

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff"})
FOREIGN = frozenset({".avif", ".heic", ".heif", ".jxl", ".webp"})
"""Photos that COLMAP's own programs do not open, and so could not use the model of."""

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF")
"""Pillow's names of what is opened. Not among them is EPS, for which Pillow runs Ghostscript."""

MAX_MEGAPIXELS = 200.0
"""Default limit on the size of a photo; decoding takes some 7 bytes a pixel."""

_SIGNATURES = (
    (b"GIF8", 0, "GIF"),
    (b"WEBP", 8, "WebP"),
    (b"ftypavi", 4, "AVIF"),
    (b"ftyp", 4, "HEIC"),
    (b"\0\0\0\x0cjP  ", 0, "JPEG 2000"),
    (b"\xff\x4f\xff\x51", 0, "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", 0, "JPEG XL"),
    (b"\xff\x0a", 0, "JPEG XL"),
    (b"\0\0\1\0", 0, "ICO"),
    (b"\x0a\5\1", 0, "PCX"),
    (b"8BPS", 0, "Photoshop"),
    (b"%!PS", 0, "PostScript"),
    (b"%PDF", 0, "PDF"),
)
"""First bytes of a file, their offset, and the format they mean: only for the wording of an
error."""

_ORIENTATION_TAG = 0x0112
_MAX_FILE_BYTES = 1 << 32
_UNREADABLE = (
    *(OSError, SyntaxError, ValueError, OverflowError, MemoryError, EOFError),
    *(TypeError, LookupError, AttributeError, RuntimeError, StructError, ZeroDivisionError),
)
"""What Pillow raises for a damaged file: mostly the first two, but its readers of TIFF and EXIF
trust what a file says of itself."""

_OPENING = threading.RLock()


def read_image(path: Path | str, *, max_megapixels: float = MAX_MEGAPIXELS) -> ImageArray:
    """Read an image file as (H, W, 3) uint8 RGB.

    Args:
        path: a regular file.
        max_megapixels: larger photos are refused before any pixel is decoded.

    Raises:
        ImageError: naming the file, if it is missing, truncated, too large, or not an image of
            one of `FORMATS`.
    """
    return decode_image(read_image_bytes(path), str(path), max_megapixels=max_megapixels)


def read_image_bytes(path: Path | str) -> bytes:
    """The content of a photo's file, for `decode_image`. Raises ImageError naming the file."""
    try:
        return read_bytes(path, _MAX_FILE_BYTES)
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file") from error
    except OSError as error:
        raise ImageError(
            f"{path}: not a readable image ({error.strerror}); replace or remove it"
        ) from error


def decode_image(data: bytes, name: str, *, max_megapixels: float = MAX_MEGAPIXELS) -> ImageArray:
    """Decode the content of an image file as (H, W, 3) uint8 RGB.

    Grey is repeated over the channels, an alpha channel is dropped, CMYK is converted, 16-bit
    values keep their high byte. Truncated files are an error, never a half-grey picture.

    Args:
        data: what stands in the file, so that what is decoded is exactly what was hashed.
        name: the file, for the error message.
        max_megapixels: see `read_image`.

    Raises:
        ImageError: see `read_image`.
    """
    with _naming(name), _open(io.BytesIO(data), max_megapixels) as image:
        image.load()
        return _to_rgb(image)


def has_alpha(data: bytes) -> bool:
    """Whether the content of an image file says which pixels are transparent; from its header."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with _open(io.BytesIO(data), float("inf")) as image:
                return image.has_transparency_data
    except (ImageError, *_UNREADABLE):
        return False  # to read it as an image will say why


def decode_alpha(data: bytes, name: str, *, max_megapixels: float = MAX_MEGAPIXELS) -> ImageArray:
    """The alpha channel of the content of an image file, (H, W) uint8: 0 is transparent.

    Args:
        data: What stands in the file.
        name: The file, for the error message.
        max_megapixels: See `read_image`.

    Raises:
        ImageError: See `read_image`.
    """
    with _naming(name), _open(io.BytesIO(data), max_megapixels) as image:
        image.load()
        return np.array(image.convert("RGBA").getchannel("A"))


def image_size(path: Path | str, *, max_megapixels: float = MAX_MEGAPIXELS) -> tuple[int, int]:
    """(width, height) in pixels from the header alone. Raises ImageError as `read_image`."""
    with _naming(str(path)), open_regular(path) as file, _open(file, max_megapixels) as image:
        return image.size


def exif_orientation(data: bytes) -> int:
    """EXIF orientation (1 to 8) of the content of an image file; 1, as stored, where none is told.

    Broken EXIF data counts as none: it says nothing about the pixels.
    """
    try:
        with _naming("EXIF"), _open(io.BytesIO(data), float("inf")) as image:
            value = _exif(image).get(_ORIENTATION_TAG, 1)
    except ImageError:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


@contextmanager
def opened_exif(path: Path | str) -> Iterator[Image.Exif]:
    """The EXIF data of a photo, empty where there are none; pixels are not decoded.

    Some parts are read from the file when they are asked for, so that this is a block, and what
    goes wrong within it is the file's. Raises ImageError as `read_image`.
    """
    with _naming(str(path)), open_regular(path) as file, _open(file, float("inf")) as image:
        yield _exif(image)


def read_xmp(path: Path | str) -> str:
    """The XMP data of a photo, empty where there are none. Raises ImageError as `read_image`."""
    with _naming(str(path)), open_regular(path) as file, _open(file, float("inf")) as image:
        found = image.info.get("xmp", b"")
        return found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)


def _exif(image: Image.Image) -> Image.Exif:
    if image.format == "PNG" and not _EXIF_SOURCES & set(image.info):
        return Image.Exif()  # Pillow would decode all pixels to look for a tag behind them
    return image.getexif()


_EXIF_SOURCES = {"exif", "Raw profile type exif", "XML:com.adobe.xmp"}


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Turns what goes wrong while an image is read into an ImageError that names it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # e.g. palette transparency, broken EXIF: not pixels
            yield
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file") from error
    except _UNREADABLE as error:
        reason = str(error) or type(error).__name__
        raise ImageError(
            f"{name}: not a readable image ({reason[:200]}); replace or remove it"
        ) from error


def _open(file: BinaryIO, max_megapixels: float) -> Image.Image:
    """The image in a file of one of `FORMATS`, its pixels not decoded yet."""
    head = file.read(16)
    file.seek(0)
    try:
        with _OPENING:  # Pillow's own limit is a global, lower than some phones' photos
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            try:
                image = Image.open(file, formats=FORMATS)
            finally:
                Image.MAX_IMAGE_PIXELS = limit
    except UnidentifiedImageError as error:
        for signature, start, kind in _SIGNATURES:
            if head[start:].startswith(signature):
                raise ImageError(
                    f"its content is {kind}, whatever its name, which COLMAP does not read; "
                    "convert it to JPEG or PNG"
                ) from error
        raise ValueError("not the content of a JPEG, PNG, PPM, BMP or TIFF file") from error
    width, height = image.size
    if width * height > max_megapixels * 1e6:
        raise ImageError(
            f"{width} x {height} pixels are more than the limit of {max_megapixels:g} megapixels; "
            "shrink the photo, or raise the limit"
        )
    return image


STRIP_ROWS = 2048
"""Rows of a large picture that are taken over at a time: Pillow makes a copy of them on the way."""


def _to_rgb(image: Image.Image) -> ImageArray:
    """A writeable copy of the pixels: Pillow's own memory is read-only."""
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip at 255
        grey = np.asarray(image).astype(np.uint32)
        return np.repeat((grey >> 8).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range")
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if rgb.height <= STRIP_ROWS:
        return np.array(rgb)
    pixels = np.empty((rgb.height, rgb.width, 3), np.uint8)
    for top in range(0, rgb.height, STRIP_ROWS):
        bottom = min(top + STRIP_ROWS, rgb.height)
        pixels[top:bottom] = np.asarray(rgb.crop((0, top, rgb.width, bottom)))
    return pixels


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
