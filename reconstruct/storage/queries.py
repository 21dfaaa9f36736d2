"""Lists of images with intrinsics: ``name camera_model width height params...`` a line.

The form of Aachen Day-Night's ``*_with_intrinsics.txt`` and ``database_intrinsics.txt``. A name
may hold spaces; a line that is a name alone is an image without known intrinsics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from reconstruct.errors import UsageError
from reconstruct.types import Intrinsics
from reconstruct.workspace import atomic_path


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
        lines = path.read_text(encoding="utf-8").splitlines()
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
        lines.append(f"{name} {camera.model} {camera.size[0]} {camera.size[1]} {params}\n")
    with atomic_path(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def _parse(line: str, is_model: Callable[[str], bool], where: str) -> tuple[str, Intrinsics | None]:
    words = line.split()
    cut = next((i for i, word in enumerate(words) if i and is_model(word)), None)
    if cut is None and len(words) > 1 and _is_number(words[-1]):
        raise UsageError(f"{where}: no camera model of COLMAP in {line!r}")
    if cut is None:
        return line.strip(), None
    try:
        width, height = int(words[cut + 1]), int(words[cut + 2])
        params = tuple(float(word) for word in words[cut + 3 :])
    except (IndexError, ValueError) as error:
        raise UsageError(
            f"{where}: expected `name camera_model width height params...`, got {line!r}"
        ) from error
    name = line[: line.index(f" {words[cut]} ")].strip() if cut > 1 else words[0]
    return name, Intrinsics(model=words[cut], size=(width, height), params=params)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
