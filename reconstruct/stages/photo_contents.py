"""What the features of a photo are made of, and the fingerprints that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reconstruct.datasets import Dataset
from reconstruct.errors import ArtifactError
from reconstruct.fingerprints import file_hash, fingerprint
from reconstruct.images import exif_orientation
from reconstruct.orientation import AS_STORED, turned_further
from reconstruct.stages.extract_settings import ExtractConfig
from reconstruct.storage.turns import FoundTurn

ALPHA = "alpha"
"""Stands for the hash of a mask that is the photo's own alpha channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoContents:
    """What the features of a photo are made of.

    Args:
        image: SHA-256 of the photo (None: unreadable).
        mask: That of its mask (None: it has none).
        orientation: EXIF orientation by which the photo is turned.
        file: Where features are read from a file, its hash, in a list.
    """

    image: str | None
    mask: str | None
    orientation: int
    file: list[str | None] | None = None

    def contents(self, orientation: int) -> list[str | None]:
        """All of it, as the fingerprint has it, turned by ``orientation``."""
        return [self.image, self.mask, *turned_by(orientation), *(self.file or [])]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identities:
    """What decides features and rows beside the content of the files.

    Args:
        extractor: The extractor's identity.
        stored: How descriptors are stored: dimension, encoding, fingerprint of the basis.
        describer: Identity of the describer of global descriptors (None: there is none).
        turns: Image name -> the turn that stage `turn` found for it.
    """

    extractor: Mapping[str, Any]
    stored: Sequence[Any]
    describer: Any
    turns: Mapping[str, FoundTurn]

    def orientation(self, name: str, photo: PhotoContents) -> int:
        """EXIF orientation by which the extractor's input is turned."""
        found = self.turns.get(name)
        if found is None or found.features != self.features(photo.contents(photo.orientation)):
            return photo.orientation
        return turned_further(photo.orientation, found.quarter_turns)

    def as_float32(self) -> Identities | None:
        """The same with float32 descriptors, the earlier default, which hold more than float16."""
        dim, encoding, basis = self.stored
        return replace(self, stored=[dim, "float32", basis]) if encoding == "float16" else None

    def features(self, contents: Sequence[str | None]) -> str:
        """Fingerprint of the features that are made of a photo's contents."""
        return fingerprint("features", self.extractor, self.stored, *contents)

    def rows(self, contents: Sequence[str | None]) -> str:
        """Fingerprint of the rows of global descriptors that are made of a photo's contents."""
        return fingerprint("rows", self.describer, *contents)


def used_orientation(data: bytes, config: ExtractConfig) -> int:
    """EXIF orientation by which a photo is turned for the network."""
    return exif_orientation(data) if config.orientation == "exif" else AS_STORED


def turned_by(orientation: int) -> list[str]:
    """What a turn adds to a photo's fingerprint; nothing for photos as stored, whose features stay
    valid."""
    return [] if orientation == AS_STORED else [f"turned by EXIF orientation {orientation}"]


def mask_path(dataset: Dataset, name: str) -> Path | None:
    """Where the mask of an image is; None: it has none."""
    if dataset.masks is None:
        return None
    found = (dataset.masks / f"{n}.png" for n in (dataset.original(name), name))  # COLMAP's rule
    return next((path for path in found if path.is_file()), None)


def mask_hash(dataset: Dataset, name: str) -> str | None:
    """SHA-256 of the mask of an image; None: it has none."""
    path = mask_path(dataset, name)
    return None if path is None else hash_if_readable(path)


def hash_if_readable(path: Path) -> str | None:
    """SHA-256 of a file; None if it cannot be read."""
    try:
        return file_hash(path)
    except ArtifactError:
        return None  # to read it as an image will say why, and skip it
