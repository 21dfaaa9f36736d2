"""A folder of photos, subfolders included."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from reconstruct.errors import DataError, UsageError
from reconstruct.images import EXTENSIONS, FOREIGN
from reconstruct.ownership import is_own

MADE_OF_PHOTOS = ("dataset", "export")
"""Folders of copies of photos in an output folder."""


def list_images(
    root: Path, further: frozenset[str] = frozenset()
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Sorted image names below ``root``, and the files left out with the reason.

    ``further``: extensions of photos of other formats that are wanted too.

    Hidden files and folders are passed over; so are files without the extension of an image.
    A folder that links lead to more than once counts once, under its own path if it has one.
    What this program made of photos, in an output folder below ``root``, is passed over.
    Raises UsageError if ``root`` is not a folder, DataError if it holds no image.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder; give the folder of photos with --images")
    names: list[str] = []
    skipped: dict[str, str] = {}
    for folder, files in _folders(root):
        for file in files:
            suffix = Path(file).suffix.lower()
            if file.startswith(".") or suffix not in EXTENSIONS | FOREIGN | further:
                continue
            path = folder / file
            name = path.relative_to(root).as_posix()
            reason = _bad_name(name) or _bad_file(path)
            if suffix in FOREIGN - further:
                reason = f"COLMAP cannot read {suffix} files; convert it to .jpg or .png"
            if reason:
                skipped[name.encode("utf-8", "replace").decode()] = reason
            else:
                names.append(name)
    if not names:
        kinds = " ".join(sorted(EXTENSIONS))
        raise DataError(f"{root}: no images in this folder (looked for {kinds})")
    return tuple(sorted(names)), skipped


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every real folder below ``root`` once, with its files; what links lead to comes last."""
    above = {_identity(folder) for folder in root.resolve().parents}
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        links: list[Path] = []
        for start in waiting:
            for folder, subfolders, files in os.walk(start):
                here = Path(folder)
                if _identity(here) in seen | above:  # above: a link that leads out and in again
                    subfolders.clear()
                    continue
                seen.add(_identity(here))
                subfolders[:] = sorted(
                    name
                    for name in subfolders
                    if not name.startswith(".")
                    and not (name in MADE_OF_PHOTOS and is_own(here / name))
                )
                links += [here / name for name in subfolders if (here / name).is_symlink()]
                yield here, sorted(files)
        waiting = links


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _bad_file(path: Path) -> str | None:
    """Why a file is no photo, whatever stands in it; a dead link is named when it is read."""
    if path.exists() and not path.is_file():
        return "not a regular file"
    return None


def _bad_name(name: str) -> str | None:
    if any(ord(character) < 32 for character in name):
        return "its name holds a control character; rename it"
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not valid UTF-8; rename it"
    return None
