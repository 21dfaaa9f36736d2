"""Photos to localize: from a folder, or from a list with intrinsics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reconstruct import colmap
from reconstruct.errors import ImageError, UsageError
from reconstruct.images import image_size
from reconstruct.storage.queries import read_intrinsics
from reconstruct.types import Intrinsics, Query

MISSING = "listed, but there is no such photo"


def find_queries(
    root: Path, names: Sequence[str], source: str
) -> tuple[tuple[Query, ...], dict[str, str]]:
    """The queries that ``source`` stands for.

    Args:
        root: Folder that image names are relative to.
        names: Names of the images.
        source: A folder below ``root``, or a text file (see `reconstruct.storage.queries`).

    Returns:
        The sorted queries, and name -> reason for listed names that are not among ``names``.

    Raises:
        UsageError: ``source`` is neither, or contains no query.
    """
    path = Path(source)
    if path.is_dir():
        prefix = _below(root, path)
        queries = [Query(name=name) for name in names if name.startswith(prefix)]
        missing: dict[str, str] = {}
    elif path.is_file():
        listed = read_list(path)
        group, known = query_group(path), set(names)
        queries = [
            Query(name=n, intrinsics=c, group=group) for n, c in listed.items() if n in known
        ]
        missing = {name: MISSING for name in listed if name not in known}
    else:
        raise UsageError(f"{path}: no such folder or list of queries (dataset.queries)")
    if not queries:
        raise UsageError(f"{path}: none of the photos below {root} is a query of this")
    return tuple(sorted(queries, key=lambda query: query.name)), missing


def read_list(path: Path) -> dict[str, Intrinsics | None]:
    """A list of photos with intrinsics that COLMAP takes. Raises UsageError naming both."""
    listed = read_intrinsics(path, colmap.is_camera_model)
    for name, known in listed.items():
        try:
            if known is not None:
                colmap.check_intrinsics(known)
        except UsageError as error:
            raise UsageError(f"{path}: {name}: {error}") from error
    return listed


def query_group(path: Path) -> str:
    """``day`` for ``day_time_queries_with_intrinsics.txt``; else the file's name."""
    return path.stem.split("_time_queries")[0]


def check_size(path: Path, intrinsics: Intrinsics | None) -> None:
    """Raise UsageError if a photo has another size than its intrinsics are for.

    A photo that cannot be read passes: extraction names and skips it.
    """
    if intrinsics is None:
        return
    try:
        size = image_size(path)
    except ImageError:
        return
    if size != intrinsics.size:
        raise UsageError(
            f"{path}: the photo is {size[0]} x {size[1]} pixels, but its listed intrinsics are "
            f"for {intrinsics.size[0]} x {intrinsics.size[1]}; resize the photo or mend the list"
        )


def _below(root: Path, folder: Path) -> str:
    try:
        inside = folder.resolve().relative_to(root.resolve()).as_posix()
    except ValueError as error:
        raise UsageError(
            f"{folder}: dataset.queries must lie inside of dataset.images ({root}), "
            "as names are relative to that"
        ) from error
    return "" if inside == "." else f"{inside}/"
