"""A folder of photos, subfolders included."""

from __future__ import annotations

import os
from pathlib import Path

from reconstruct.errors import DataError, UsageError
from reconstruct.images import EXTENSIONS, FOREIGN


def list_images(root: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """Sorted image names below ``root``, and the files left out with the reason.

    Hidden files and folders are ignored, and so are files without the extension of an image. Raises
    UsageError if ``root`` is not a folder, DataError if it contains no image.
    """
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder; give the folder of photos with --images")
    names: list[str] = []
    skipped: dict[str, str] = {}
    for folder, subfolders, files in os.walk(root, followlinks=True):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for file in sorted(files):
            suffix = Path(file).suffix.lower()
            if file.startswith(".") or suffix not in EXTENSIONS | FOREIGN:
                continue
            name = (Path(folder) / file).relative_to(root).as_posix()
            reason = _bad_name(name)
            if suffix in FOREIGN:
                reason = f"COLMAP cannot read {suffix} files; convert it to .jpg or .png"
            if reason:
                skipped[name.encode("utf-8", "replace").decode()] = reason
            else:
                names.append(name)
    if not names:
        kinds = " ".join(sorted(EXTENSIONS))
        raise DataError(f"{root}: no images in this folder (looked for {kinds})")
    return tuple(sorted(names)), skipped


def _bad_name(name: str) -> str | None:
    if any(ord(character) < 32 for character in name):
        return "its name holds a control character; rename it"
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not valid UTF-8; rename it"
    return None
