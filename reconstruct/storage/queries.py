"""Lists of images with intrinsics: ``name camera_model width height params...`` a line.

The form of Aachen Day-Night's ``*_with_intrinsics.txt`` and ``database_intrinsics.txt``. A name
may hold spaces; a line that is a name alone is an image without known intrinsics. ``./`` before a
name is ignored: it is written where a name begins with a space or a ``#``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from reconstruct.atomic import atomic_path
from reconstruct.config import shown
from reconstruct.errors import UsageError
from reconstruct.files import read_text
from reconstruct.storage.names import listed_name, name_in_list
from reconstruct.types import Intrinsics


def read_intrinsics(path: Path, is_model: Callable[[str], bool]) -> dict[str, Intrinsics | None]:
    """Name -> intrinsics, in the order of the file; blank lines and ``#`` lines are skipped.

    An image listed twice counts once.

    Args:
        path: The list.
        is_model: Whether a word is the name of a camera model, which ends a name with spaces.

    Raises:
        UsageError: The file cannot be read, a line is not of this form, or an image is listed twice
            with different intrinsics.
    """
    try:
        lines = read_text(path).split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a list of images ({error})") from error
    found: dict[str, Intrinsics | None] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, intrinsics = _parse(line, is_model, f"{path}:{number}")
        if name in found and found[name] != intrinsics:
            raise UsageError(
                f"{path}:{number}: {name} is listed twice with different intrinsics; remove one"
            )
        found[name] = intrinsics
    return found


def write_intrinsics(path: Path, images: Iterable[tuple[str, Intrinsics]]) -> None:
    """Write images with their intrinsics, with all digits."""
    lines = []
    for name, camera in images:
        params = " ".join(f"{value:.17g}" for value in camera.params)
        lines.append(
            f"{listed_name(name)} {camera.model} {camera.size[0]} {camera.size[1]} {params}\n"
        )
    with atomic_path(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def _parse(line: str, is_model: Callable[[str], bool], place: str) -> tuple[str, Intrinsics | None]:
    words = [match.group() for match in re.finditer(r"\S+", line)]
    starts = [match.start() for match in re.finditer(r"\S+", line)]
    cut = next((i for i, word in enumerate(words) if i and is_model(word)), None)
    if cut is None and len(words) > 1 and _is_number(words[-1]):
        raise UsageError(f"{place}: no camera model of COLMAP in {shown(line)}")
    if cut is None:
        return name_in_list(line), None
    try:
        width, height = int(words[cut + 1]), int(words[cut + 2])
        params = tuple(float(word) for word in words[cut + 3 :])
    except (IndexError, ValueError) as error:
        raise UsageError(
            f"{place}: expected `name camera_model width height params...`, got {shown(line)}"
        ) from error
    # In every model of COLMAP the first parameter is a focal length.
    if not (0 < min(width, height) <= max(width, height) < 2**31):
        raise UsageError(f"{place}: {width} x {height} pixels is no size of a photo")
    if not np.isfinite(params).all() or not params or params[0] <= 0:
        raise UsageError(
            f"{place}: intrinsics are finite numbers, the focal length above 0; got {shown(line)}"
        )
    name = name_in_list(line[: starts[cut]])
    return name, Intrinsics(model=words[cut], size=(width, height), params=params)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
