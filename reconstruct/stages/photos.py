"""Photos that a stage after extraction looks at again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reconstruct.errors import ImageError
from reconstruct.images import decode_image, read_image_bytes
from reconstruct.types import ImageArray


@dataclass(frozen=True, slots=True, eq=False)
class KnownPhotos:
    """The photos of a run, as long as they are those whose features were extracted.

    Results are stored under the hash of a photo's file. If the file were replaced and then read,
    results from other pixels would be taken for right ones.

    Attributes:
        root: Folder that names are relative to.
        hashes: Name -> SHA-256 of the file (None: it could not be read).
        max_megapixels: Larger photos are refused.
    """

    root: Path
    hashes: Mapping[str, str | None]
    max_megapixels: float

    def read(self, name: str) -> ImageArray:
        """(H, W, 3) uint8 pixels. Raises ImageError if the file has changed, or is unreadable."""
        path = self.root / name
        data = read_image_bytes(path)
        if hashlib.sha256(data).hexdigest() != self.hashes.get(name):
            raise ImageError(f"{path}: changed since its features were extracted; run again")
        return decode_image(data, str(path), max_megapixels=self.max_megapixels)

    def read_file(self, path: Path) -> ImageArray:
        """As `read`, by the path of a photo below ``root``."""
        return self.read(path.relative_to(self.root).as_posix())
