"""What each artifact of an output folder was when it was committed: ``.fingerprints.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from reconstruct.atomic import atomic_path
from reconstruct.errors import ArtifactError
from reconstruct.files import read_json
from reconstruct.fingerprints import database_hash, file_hash, tree_hash


class Stamp(NamedTuple):
    """What an artifact was when it was committed.

    fingerprint: of all that decided it; empty while it is being made. size: bytes, of all files.
    changed_ns: time at which the system last noted a change of it. content: SHA-256.
    """

    fingerprint: str
    size: int
    changed_ns: int
    content: str


BEING_MADE = Stamp("", -1, -1, "")
"""Of an artifact of this program's that is not finished."""


def make_stamp(artifact: Path, fingerprint: str) -> Stamp:
    """The stamp of an artifact as it is now."""
    size, changed = state(artifact)
    return Stamp(fingerprint, size, changed, content(artifact))


def unchanged(artifact: Path, stamp: Stamp) -> bool:
    """Whether an artifact is still what was committed; read only if its time of change differs, as
    that of a copy does."""
    try:
        size, changed = state(artifact)
        if size != stamp.size:
            return False
        return changed == stamp.changed_ns or stamp.content in ("", content(artifact))
    except (ArtifactError, OSError):
        return False


def content(artifact: Path) -> str:
    """SHA-256 of what an artifact holds. Raises ArtifactError if it cannot be read."""
    if artifact.is_dir():
        return tree_hash(artifact)
    return database_hash(artifact) if artifact.suffix == ".db" else file_hash(artifact)


def state(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change, over all files of a folder.

    Of the times of a file it is the one that no program can set back. Stamps of older versions have
    the other one: such an artifact is read once.
    """
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    stats = [file.stat() for file in files]
    changed = (s.st_mtime_ns if os.name == "nt" else s.st_ctime_ns for s in stats)
    return sum(s.st_size for s in stats), max(changed, default=0)


def write_stamps(path: Path, stamps: Mapping[str, Stamp]) -> None:
    """Write the file, atomically. stamps: by the artifacts' names."""
    content = {name: list(stamp) for name, stamp in stamps.items()}
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True), encoding="utf-8")


def read_stamps(path: Path) -> dict[str, Stamp]:
    """The stamps in a file; none if there is no such file, or none that can be read: everything is
    then made anew, unless it may be somebody's work."""
    try:
        stamps = read_json(path)
        # Older folders have fingerprint and size alone.
        return {
            name: Stamp(*values, *(-1, "")[len(values) - 2 :]) for name, values in stamps.items()
        }
    except (AttributeError, OSError, TypeError, ValueError):
        return {}
