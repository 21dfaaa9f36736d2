"""The output folder: names of artifacts, fingerprints, atomic commits, the lock.

An artifact is written under a temporary name, flushed to disk, and renamed: a file that stands
under its final name is whole. Whether it is *up to date* is another question, answered by
fingerprints: SHA-256 over all that decided its content.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reconstruct.errors import ArtifactError, UsageError, WorkspaceBusyError
from reconstruct.files import open_regular

SCHEMA_VERSION = 1
"""Part of every fingerprint: raise it when the meaning of a stored artifact changes."""

TEMPORARY = ".tmp"
"""Suffix of everything that is not committed yet."""


class Workspace:
    """Paths inside one output folder, and which of them are up to date."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.config = self.root / "run.yaml"
        self.log = self.root / "log.txt"
        self.dataset = self.root / "dataset"
        self.features = self.root / "features"
        self.global_ = self.root / "global"
        self.pairs = self.root / "pairs.txt"
        self.matches = self.root / "matches"
        self.verified = self.root / "verified.db"
        self.alignments = self.root / "alignments"
        self.database = self.root / "database.db"
        self.sparse = self.root / "sparse"
        self.localized = self.root / "localized"
        self.poses = self.root / "poses.txt"
        self.metrics = self.root / "metrics.json"
        self.report = self.root / "report.html"
        self._stamps = self.root / ".fingerprints.json"

    def models(self) -> list[Path]:
        """The mapped models, the largest first: ``sparse``, ``sparse_1``, ``sparse_2`` ..."""
        further = [p for p in self.root.glob("sparse_*") if p.name[7:].isdigit()]
        found = [self.sparse, *sorted(further, key=lambda p: int(p.name[7:]))]
        return [path for path in found if path.is_dir()]

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one run, creating it; released by the system if the run is killed.

        Raises WorkspaceBusyError naming the process that holds it, UsageError if there can be no
        such folder.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise UsageError(
                f"{self.root}: cannot be an output folder ({error.strerror}); "
                "choose another --output"
            ) from error
        with open(self.root / ".lock", "a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise WorkspaceBusyError(
                    f"{self.root}: in use by another run (process {holder}); "
                    "wait for it, or choose another --output"
                ) from error
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    def stamp(self, artifact: Path) -> str | None:
        """The fingerprint under which an artifact was committed.

        None if it is not there, or has not the size that it had: it was cut off or edited.
        """
        value, size = self._read_stamps().get(artifact.name, (None, -1))
        return value if size == _size(artifact) else None

    def set_stamp(self, artifact: Path, fingerprint: str | None) -> None:
        """Record (None: forget) the fingerprint of an artifact, after it was committed."""
        stamps = self._read_stamps()
        stamps.pop(artifact.name, None)
        if fingerprint is not None:
            stamps[artifact.name] = (fingerprint, _size(artifact))
        with atomic_path(self._stamps) as temporary:
            temporary.write_text(json.dumps(stamps, indent=1, sort_keys=True), encoding="utf-8")

    def _read_stamps(self) -> dict[str, tuple[str, int]]:
        try:
            stamps = json.loads(self._stamps.read_text(encoding="utf-8"))
            return {name: (str(value), int(size)) for name, (value, size) in stamps.items()}
        except FileNotFoundError:
            return {}
        except (AttributeError, OSError, TypeError, ValueError):
            return {}  # unreadable counts as missing: everything is then made anew


def fingerprint(kind: str, *parts: Any) -> str:
    """SHA-256 (hex) over the schema version, ``kind`` and JSON-able ``parts``, order included."""
    text = json.dumps([SCHEMA_VERSION, kind, *parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a regular file's bytes. Raises ArtifactError naming the file."""
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from error


def tree_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of all files below ``folder``."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    rows = [[path.relative_to(folder).as_posix(), file_hash(path)] for path in files]
    return fingerprint("tree", rows)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path that becomes ``path`` (a file or a folder) when the block ends well.

    If the block raises, the temporary is removed and what stood at ``path`` stays.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    remove(temporary)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        for file in [temporary, *temporary.rglob("*")] if temporary.is_dir() else [temporary]:
            _flush(file)
        if path.is_dir():  # a rename cannot replace a folder that is not empty
            aside = path.with_name(path.name + ".old")
            remove(aside)
            os.replace(path, aside)
            os.replace(temporary, path)
            remove(aside)
        else:
            os.replace(temporary, path)
        _flush(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            remove(temporary)
        raise


def reserve(folder: Path, size: int) -> None:
    """Make sure that ``size`` bytes can be written to ``folder``.

    For writers that do not notice a full disk, or crash on it. Raises OSError if there is no room.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, size)


def remove(path: Path) -> None:
    """Delete a file or a folder; nothing to do if it is not there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
