"""The output folder: names of artifacts, fingerprints, atomic commits, the lock.

An artifact is written under a temporary name, flushed to disk, and renamed: a file that stands
under its final name is whole. Whether it is *up to date* is another question, answered by
fingerprints: SHA-256 over all that decided its content.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np
from numpy.typing import NDArray

from reconstruct.errors import ArtifactError, UsageError, WorkspaceBusyError
from reconstruct.files import open_regular

SCHEMA_VERSION = 1
"""Part of every fingerprint: raise it when the meaning of a stored artifact changes."""

TEMPORARY = ".tmp"
"""Suffix of everything that is not committed yet."""

MARKER = ".reconstruct"
"""Marks an output folder as made by this program."""
HOLDER = ".lock.holder"
"""Names the run that holds the lock: its process, for the message to others, and a mark of its own,
for workers on other machines."""


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
        self.turns = self.root / "turns"
        self.geometries = self.root / "geometries"
        self.alignments = self.root / "alignments"
        self.refined = self.root / "refined"
        self.refined_geometries = self.root / "refined_geometries"
        self.database = self.root / "database.db"
        self.sparse = self.root / "sparse"
        self.snapshots = self.root / "mapping"
        self.localized = self.root / "localized"
        self.poses = self.root / "poses.txt"
        self.gps = self.root / "gps.json"
        self.metrics = self.root / "metrics.json"
        self.report = self.root / "report.html"
        self.summary = self.root / "summary.json"
        self._stamps = self.root / ".fingerprints.json"

    def models(self) -> list[Path]:
        """The mapped models, the largest first: ``sparse``, ``sparse_1``, ``sparse_2`` ..."""
        stamps = self._read_stamps()
        further = [p for p in self.root.glob("sparse_*") if p.name[7:].isdigit()]
        own = [path for path in further if path.name in stamps]  # others are somebody's
        models = [self.sparse, *sorted(own, key=lambda path: int(path.name[7:]))]
        return [path for path in models if path.is_dir()]

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one run, creating and marking it as this program's.

        Released by the system if the run is killed.

        Raises:
            WorkspaceBusyError: Another run holds it; names the process.
            UsageError: There can be no such folder, or it holds somebody else's work.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            self._mark()
            held = filelock.FileLock(self.root / ".lock", blocking=False)
            held.acquire()
            self._put_back()
        except filelock.Timeout as error:
            raise WorkspaceBusyError(
                f"{self.root}: in use by another run (process {self._holder()}); "
                "wait for it, or choose another --output"
            ) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise UsageError(
                f"{error.filename or self.root}: cannot be (part of) an output folder "
                f"({error.strerror}); choose another --output"
            ) from error
        try:
            holder = f"{os.getpid()}\n{uuid.uuid4()}\n"
            with naming(self.root / HOLDER):
                (self.root / HOLDER).write_text(holder, encoding="utf-8")
            yield
        finally:
            (self.root / HOLDER).unlink(missing_ok=True)
            held.release()

    def _holder(self) -> str:
        with contextlib.suppress(OSError):
            lines = (self.root / HOLDER).read_text(encoding="utf-8").split()
            return lines[0] if lines else "unknown"
        return "unknown"

    def _mark(self) -> None:
        """Mark the folder as this program's. Raises UsageError if it is somebody else's."""
        marker = self.root / MARKER
        if marker.is_file() or self._stamps.is_file():  # stamps: made before there were markers
            marker.touch()
            return
        foreign = [path for path in self._artifacts() if path.exists() or path.is_symlink()]
        foreign += [path for path in self.root.glob("sparse_*") if path.name[7:].isdigit()]
        if foreign:
            names = ", ".join(path.name for path in foreign)
            raise UsageError(
                f"{self.root}: holds files that this program would replace, and did not write "
                f"({names}); give an empty or a new folder as --output"
            )
        with naming(marker):
            marker.write_text("An output folder of reconstruct.\n", encoding="utf-8")

    def _put_back(self) -> None:
        """Undo the replacing of a folder, of which a run was killed before the new one counted.

        A model may have been grown from the one that it replaced.
        """
        for name, stamp in self._read_stamps().items():
            path, aside = self.root / name, aside_of(self.root / name)
            if aside.is_dir() and not (stamp.fingerprint and path.exists()):
                remove(path)
                os.replace(aside, path)
            remove(aside)

    def _artifacts(self) -> list[Path]:
        return [path for path in vars(self).values() if path not in (self.root, self.dataset)]

    def stamp(self, artifact: Path) -> str | None:
        """The fingerprint under which an artifact was committed.

        None if it is not there, or is not what was committed: it was cut off, edited or replaced.
        """
        stamp = self._read_stamps().get(artifact.name)
        if stamp is None or not stamp.fingerprint:
            return None
        return stamp.fingerprint if _unchanged(artifact, stamp) else None

    def set_stamp(self, artifact: Path, fingerprint: str | None) -> None:
        """Record the fingerprint of an artifact, after it was committed.

        None: it is this program's, and about to be made. Raises UsageError if there is a file of
        that name which the program did not write.
        """
        stamps = self._read_stamps()
        if fingerprint is not None:
            size, changed = _state(artifact)
            stamps[artifact.name] = Stamp(fingerprint, size, changed, _content(artifact))
        elif artifact.name in stamps or not artifact.exists() or not _is_precious(artifact):
            stamps[artifact.name] = Stamp("", -1, -1, "")
        else:
            raise UsageError(
                f"{artifact}: is not of this program's making and would be replaced; move it "
                "elsewhere, or choose another --output"
            )
        self._write_stamps(stamps)
        if fingerprint is not None:
            remove(aside_of(artifact))

    def renew_stamp(self, artifact: Path) -> None:
        """Look at an artifact again after another program has opened it to write.

        Else it would be read whole whenever somebody asks whether it is what was committed.
        """
        if self.stamp(artifact) is not None:
            stamps, (size, changed) = self._read_stamps(), _state(artifact)
            renewed = stamps[artifact.name]._replace(size=size, changed_ns=changed)
            if renewed != stamps[artifact.name]:
                self._write_stamps({**stamps, artifact.name: renewed})

    def forget_models(self, kept: int) -> None:
        """Remove the models beyond the first ``kept``, those that this program wrote."""
        for path in self.models()[kept:]:
            stamps = self._read_stamps()
            remove(path)
            stamps.pop(path.name, None)
            self._write_stamps(stamps)

    def _write_stamps(self, stamps: dict[str, Stamp]) -> None:
        content = {name: list(stamp) for name, stamp in stamps.items()}
        with atomic_path(self._stamps) as temporary:
            temporary.write_text(json.dumps(content, indent=1, sort_keys=True), encoding="utf-8")

    def _read_stamps(self) -> dict[str, Stamp]:
        try:
            stamps = json.loads(self._stamps.read_text(encoding="utf-8"))
            # Older folders have fingerprint and size alone.
            return {
                name: Stamp(*values, *(-1, "")[len(values) - 2 :])
                for name, values in stamps.items()
            }
        except FileNotFoundError:
            return {}
        except (AttributeError, OSError, TypeError, ValueError):
            return {}  # unreadable counts as missing: everything is then made anew


class Stamp(NamedTuple):
    """What an artifact was when it was committed.

    fingerprint: of all that decided it; empty while it is being made. size: bytes, of all files.
    changed_ns: time of its last change. content: SHA-256.
    """

    fingerprint: str
    size: int
    changed_ns: int
    content: str


def _is_precious(artifact: Path) -> bool:
    """Whether other programs keep their work under that name."""
    name = artifact.name
    return name in ("database.db", "sparse", "pairs.txt", "poses.txt") or name.startswith("sparse_")


def _unchanged(artifact: Path, stamp: Stamp) -> bool:
    """Whether an artifact is still what was committed; read only if its time of change differs."""
    try:
        size, changed = _state(artifact)
        if size != stamp.size:
            return False
        return changed == stamp.changed_ns or stamp.content in ("", _content(artifact))
    except (ArtifactError, OSError):
        return False


def _content(artifact: Path) -> str:
    if artifact.is_dir():
        return tree_hash(artifact)
    return database_hash(artifact) if artifact.suffix == ".db" else file_hash(artifact)


def fingerprint(kind: str, *parts: Any) -> str:
    """SHA-256 (hex) over the schema version, ``kind`` and JSON-able ``parts``, order included."""
    return _text_hash(json_text([SCHEMA_VERSION, kind, *parts]))


def fingerprinter(kind: str, *shared: Any) -> Callable[..., str]:
    """For many fingerprints that begin alike: what they share is made text once.

    ``fingerprinter(kind, a)(json_text(b))`` is ``fingerprint(kind, a, b)``.
    """
    head = json_text([SCHEMA_VERSION, kind, *shared]).removesuffix("]")
    return lambda *texts: _text_hash(",".join([head, *texts]) + "]")


def json_text(part: Any) -> str:
    """A JSON-able part of a fingerprint as the text that is hashed."""
    return json.dumps(part, sort_keys=True, separators=(",", ":"))


def _text_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a regular file's bytes. Raises ArtifactError naming the file."""
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ArtifactError(f"{path}: cannot be read ({error.strerror})") from error


def array_hash(array: NDArray[Any]) -> str:
    """SHA-256 (hex) over the type, shape and values of an array."""
    kind = f"{array.dtype.str} {array.shape} ".encode("ascii")
    return hashlib.sha256(kind + np.ascontiguousarray(array).tobytes()).hexdigest()


def tree_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of all files below ``folder``."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    rows = [[path.relative_to(folder).as_posix(), file_hash(path)] for path in files]
    return fingerprint("tree", rows)


def database_hash(path: Path) -> str:
    """SHA-256 over the rows of all tables of an SQLite database, by name.

    The bytes of the file do not say whether it is the same: a counter changes whenever a program
    opens it to write. Raises ArtifactError if it is damaged, or no database.
    """
    digest = hashlib.sha256()
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        ) as db:
            select = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
            for (table,) in db.execute(select).fetchall():
                digest.update(table.encode())
                for row in db.execute(f'SELECT * FROM "{table}" ORDER BY rowid'):
                    for value in row:
                        digest.update(value if isinstance(value, bytes) else repr(value).encode())
                        digest.update(b"|")
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DISK_ERRORS:
            raise OSError(errno.EIO, str(error), str(path)) from error
        raise ArtifactError(f"{path}: not a readable database ({error})") from error
    return digest.hexdigest()


_DISK_ERRORS = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL)
"""Reading a database takes room too, beside it."""


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
            os.replace(temporary, path)
        _remove_written(temporary)
        _flush(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            _remove_written(temporary)
        raise


def _remove_written(temporary: Path) -> None:
    """Delete what is there, and what SQLite kept beside it: the next one must not read that."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        remove(temporary.with_name(temporary.name + suffix))


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


def _state(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change, over all files of a folder."""
    files = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    stats = [file.stat() for file in files]
    return sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folder; it commits renames by itself
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
