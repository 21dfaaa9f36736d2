"""Files and folders that are whole or not there at all.

What is written gets a temporary name, is flushed to disk, and renamed: a file that stands under its
final name is whole.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from reconstruct.errors import UsageError

TEMPORARY = ".reconstruct-tmp"
"""Suffix of everything that is not committed yet; no other program's files have it."""
BESIDE = ("-wal", "-shm", "-journal")
"""Suffixes of what SQLite keeps beside a database."""


def aside_of(path: Path) -> Path:
    """Where a folder stays while it is being replaced: under no name that somebody else would give
    to a copy."""
    return path.with_name(f".{path.name}.replaced")


@contextlib.contextmanager
def atomic_path(path: Path, mark: str = "", *, keep_old: bool = False) -> Iterator[Path]:
    """A temporary path that becomes ``path`` (a file or a folder) when the block ends well.

    If the block raises, the temporary is removed and what stood at ``path`` stays; an OSError then
    names the path, which those of a full disk do not. mark: part of the temporary's name, where
    several processes may write the same content at once. keep_old: a folder that is replaced stays
    beside the new one, until this is stamped: after a kill in between it is put back.
    """
    if path.is_symlink():
        raise UsageError(f"{path}: is a symbolic link, which is not replaced; move it elsewhere")
    temporary = path.with_name(path.name + mark + TEMPORARY)
    _remove_written(temporary)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with naming(path):
            yield temporary
        for file in [temporary, *temporary.rglob("*")] if temporary.is_dir() else [temporary]:
            _flush(file)
        if path.is_dir():  # a rename cannot replace a folder that is not empty
            aside = aside_of(path)
            remove(aside)
            os.replace(path, aside)
            os.replace(temporary, path)
            if not keep_old:
                remove(aside)
        else:
            if path.suffix == ".db":  # or SQLite would read what was logged of the old one
                _remove_beside(path)
            os.replace(temporary, path)
        _remove_beside(temporary)
        _flush(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            _remove_written(temporary)
        raise


def is_temporary(name: str) -> bool:
    """Whether a file or folder of this name is not committed yet."""
    return name.endswith((TEMPORARY, *(TEMPORARY + suffix for suffix in BESIDE)))


def sweep(folder: Path, passed_over: Collection[str] = ()) -> None:
    """Remove what killed processes left half-written in a folder, at any depth.

    passed_over: names of subfolders in which others may be writing.
    """
    for here, folders, files in os.walk(folder):
        for name in filter(is_temporary, [*folders, *files]):
            remove(Path(here, name))
        others = passed_over if Path(here) == folder else ()
        folders[:] = [n for n in folders if not is_temporary(n) and n not in others]


def _remove_written(temporary: Path) -> None:
    """Delete what is there, and what SQLite kept beside it: the next one must not read that."""
    remove(temporary)
    _remove_beside(temporary)


def _remove_beside(database: Path) -> None:
    for suffix in BESIDE:
        remove(database.with_name(database.name + suffix))


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Within it, an OSError that names no file gets this one."""
    try:
        yield
    except OSError as error:
        if error.errno is None and type(error) is OSError:  # a library's own, as Pillow's
            raise OSError(errno.EIO, str(error), str(path)) from error
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


def reserve(folder: Path, size: int) -> None:
    """Make sure that ``size`` bytes can be written to ``folder``.

    For writers that do not notice a full disk, or crash on it. Raises OSError if there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        with naming(folder), tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)
    elif shutil.disk_usage(folder).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def remove(path: Path) -> None:
    """Delete a file or a folder; nothing to do if it is not there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    if path.is_symlink() or (os.name == "nt" and path.is_dir()):
        return  # what a link leads to is another's; Windows opens no folder
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
