"""Text lists of image pairs: two names a line.

Written with one space between the names, as COLMAP and hloc do, or with a tab where a name holds
a space. Read with any names: a line without a tab is cut at the space that leaves two known names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from reconstruct.errors import ArtifactError
from reconstruct.types import ImagePair
from reconstruct.workspace import atomic_path


def ordered(first: str, second: str) -> ImagePair:
    """The pair with its smaller name first."""
    return (first, second) if first <= second else (second, first)


def write_pairs(path: Path, pairs: Iterable[ImagePair]) -> None:
    """Write sorted ``pairs`` to a text file, atomically."""
    lines = []
    for pair in sorted(pairs):
        separator = "\t" if any(" " in name for name in pair) else " "
        lines.append(separator.join(pair) + "\n")
    with atomic_path(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def read_pairs(path: Path, names: Collection[str]) -> tuple[list[ImagePair], list[str]]:
    """The pairs of a list, restricted to known images.

    Blank lines are skipped, and so are lines that start with ``#`` and do not name two known
    images; a pair in both orders counts once.

    Args:
        path: The list.
        names: The known images.

    Returns:
        The sorted pairs whose images are both in ``names``, and the lines left out.

    Raises:
        ArtifactError: The file is unreadable, or a line is not two names.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: cannot be read as a list of pairs ({error})") from error
    known = set(names)
    pairs: set[ImagePair] = set()
    absent: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        pair = _split(line, known, f"{path}:{number}")
        if pair is not None and pair[0] != pair[1]:
            pairs.add(pair)
        elif not line.startswith("#"):  # a comment, and no image of a name with #
            absent.append(line)
    return sorted(pairs), absent


def _split(line: str, known: set[str], where: str) -> ImagePair | None:
    if "\t" in line:
        candidates = [tuple(line.split("\t"))]
    else:
        words = line.split(" ")
        cuts = range(1, len(words))
        candidates = [(" ".join(words[:cut]), " ".join(words[cut:])) for cut in cuts]
    candidates = [pair for pair in candidates if len(pair) == 2]
    if not candidates and not line.startswith("#"):
        raise ArtifactError(f"{where}: expected two image names, got {line!r}")
    found = [pair for pair in candidates if set(pair) <= known]
    if len(found) > 1:
        raise ArtifactError(
            f"{where}: {line!r} can be cut in two ways; put a tab between the names"
        )
    return ordered(*found[0]) if found else None
