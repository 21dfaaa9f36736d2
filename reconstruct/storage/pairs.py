"""Text lists of image pairs: two names a line.

Written with one space between the names, as COLMAP and hloc do, or with a tab where a name holds
a space. Read with any names: a line without a tab is cut at the space that leaves two known names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from reconstruct.atomic import atomic_path
from reconstruct.config import shown
from reconstruct.errors import ArtifactError
from reconstruct.files import read_text
from reconstruct.types import ImagePair

LONGEST_LINE = 2 * 4096
"""Characters of a line that can be two names: Linux has no longer paths."""


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
        lines = read_text(path).split("\n")
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


def _split(line: str, known: set[str], place: str) -> ImagePair | None:
    separator = "\t" if "\t" in line else " "
    cuts = [i for i, character in enumerate(line) if character == separator]
    if separator == "\t":
        cuts = cuts if len(cuts) == 1 else []
    if not line.startswith("#") and (not cuts or len(line) > LONGEST_LINE):
        raise ArtifactError(f"{place}: expected two image names, got {shown(line)}")
    found = [
        (line[:cut], line[cut + 1 :])
        for cut in cuts[:LONGEST_LINE]
        if line[:cut] in known and line[cut + 1 :] in known
    ]
    if len(found) > 1:
        raise ArtifactError(
            f"{place}: {shown(line)} can be cut in two ways; put a tab between the names"
        )
    return ordered(*found[0]) if found else None
