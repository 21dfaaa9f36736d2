"""Photos of a training set, decoded on demand; the last few are cached."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reconstruct.fingerprints import file_hash
from reconstruct.images import read_image, shrink
from reconstruct.types import ImageArray

KEPT_BYTES = 500_000_000


class Photos:
    """Photos by index, shrunk to ``max_edge``."""

    def __init__(self, paths: Sequence[Path], max_edge: int | None = None) -> None:
        self.paths = tuple(paths)
        self.max_edge = max_edge
        self._kept: OrderedDict[int, ImageArray] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self.paths)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": OrderedDict(), "_bytes": 0}

    def identity(self) -> list[str]:
        """The files by content."""
        return [file_hash(path) for path in self.paths]

    def read(self, index: int) -> ImageArray:
        """(H, W, 3) uint8 RGB of a photo. Raises ImageError if it cannot be read."""
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        photo = shrink(read_image(self.paths[index]), self.max_edge)
        self._kept[index] = photo
        self._bytes += photo.nbytes
        while self._bytes > KEPT_BYTES and len(self._kept) > 1:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return photo
