"""Whose a folder is: the mark of this program, the lock of the run that writes there, and copies of
what other programs left in it."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import filelock

from reconstruct.atomic import BESIDE, atomic_path, naming
from reconstruct.errors import UsageError, WorkspaceBusyError
from reconstruct.files import read_text

MARKER = ".reconstruct"
"""Marks a folder as made by this program."""
STAMPS = ".fingerprints.json"
"""Marks one that was made before there were markers; see stamps.py."""
LOCK = ".lock"
LOG = "log.txt"
SETTINGS = "run.yaml"
HOLDER = ".lock.holder"
"""Names the run that holds the lock: its process, for the message to others, and a mark of its own,
for workers on other machines."""


def is_own(folder: Path) -> bool:
    """Whether a folder is marked as this program's."""
    return (folder / MARKER).is_file() or (folder / STAMPS).is_file()


def mark(folder: Path, artifacts: Iterable[Path], known: bool = False) -> None:
    """Make a folder, marked as this program's.

    Args:
        folder: The folder.
        artifacts: What the program would replace in it.
        known: It is this program's by another sign.

    Raises:
        UsageError: It is there, not marked, and holds one of the artifacts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / MARKER
    if known or is_own(folder):
        marker.touch()
        return
    foreign = [path.name for path in artifacts if path.exists() or path.is_symlink()]
    if foreign:
        raise UsageError(
            f"{folder}: holds files that this program would replace, and did not write "
            f"({', '.join(foreign)}); give an empty or a new folder as --output"
        )
    with naming(marker):
        marker.write_text("An output folder of reconstruct.\n", encoding="utf-8")


def keep_copy(path: Path) -> Path:
    """Copy somebody's file or folder to a free name beside it, which is returned."""
    kept, number = path.with_name(f"{path.name}.changed"), 1
    while kept.exists():
        number += 1
        kept = path.with_name(f"{path.name}.changed-{number}")
    for suffix in BESIDE:
        beside = path.with_name(path.name + suffix)
        if beside.is_file():
            shutil.copyfile(beside, kept.with_name(kept.name + suffix))
    with atomic_path(kept) as temporary:
        if path.is_dir():
            shutil.copytree(path, temporary, symlinks=True, ignore=_without_data)
        else:
            shutil.copyfile(path, temporary)
    return kept


def _without_data(folder: str, names: Sequence[str]) -> list[str]:
    """Pipes and the like, and links that lead nowhere."""
    paths = {name: Path(folder, name) for name in names}
    return [name for name, path in paths.items() if not (path.is_file() or path.is_dir())]


@contextlib.contextmanager
def hold(folder: Path, marked: Callable[[], None]) -> Iterator[None]:
    """Hold a folder for one run.

    Released by the system if the run is killed. A folder that is made here goes again if the run
    was asked for something wrong before it made anything. marked: makes and marks the folder;
    raises UsageError if it is somebody else's.

    Raises:
        WorkspaceBusyError: Another run holds it; names the process.
        UsageError: There can be no such folder.
    """
    try:
        new = not folder.exists()
        marked()
        held = filelock.FileLock(folder / LOCK, blocking=False)
        held.acquire()
    except filelock.Timeout as error:
        raise WorkspaceBusyError(
            f"{folder}: in use by another run (process {_holder(folder)}); "
            "wait for it, or choose another --output"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UsageError(
            f"{error.filename or folder}: cannot be (part of) an output folder "
            f"({error.strerror}); choose another --output"
        ) from error
    try:
        with naming(folder / HOLDER):
            (folder / HOLDER).unlink(missing_ok=True)
            (folder / HOLDER).write_text(f"{os.getpid()}\n{uuid.uuid4()}\n", encoding="utf-8")
        yield
    except UsageError:
        if new:
            _take_back(folder)
        raise
    finally:
        (folder / HOLDER).unlink(missing_ok=True)
        held.release()


def _take_back(folder: Path) -> None:
    """Remove a folder in which nothing was made yet."""
    with contextlib.suppress(OSError):
        files = list(folder.iterdir())
        if {file.name for file in files} <= {MARKER, LOCK, HOLDER, LOG, SETTINGS}:
            for file in files:
                file.unlink()
            folder.rmdir()


def _holder(folder: Path) -> str:
    with contextlib.suppress(OSError):
        lines = read_text(folder / HOLDER).split()
        return lines[0] if lines else "unknown"
    return "unknown"
