"""Fingerprints: SHA-256 over all that decides what an artifact is.

Files count by their bytes, databases by their rows, folders by the names and bytes of all files.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.errors import ArtifactError
from reconstruct.files import open_regular

SCHEMA_VERSION = 1
"""Part of every fingerprint: raise it when the meaning of a stored artifact changes."""


def fingerprint(kind: str, *parts: Any) -> str:
    """SHA-256 (hex) over the schema version, ``kind`` and JSON-able ``parts``, order included."""
    return _text_hash(json_text([SCHEMA_VERSION, kind, *parts]))


def fingerprinter(kind: str, *shared: Any) -> Callable[..., str]:
    """For many fingerprints that begin alike: what they share is made text once.

    ``fingerprinter(kind, a)(json_text(b))`` is ``fingerprint(kind, a, b)``.
    """
    head = json_text([SCHEMA_VERSION, kind, *shared]).removesuffix("]")
    return lambda *texts: _text_hash(",".join([head, *texts]) + "]")


def is_fingerprint(value: object) -> bool:
    """Whether a value that was read can be a fingerprint."""
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


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
        with contextlib.closing(_read_only(path)) as db:
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


def _read_only(path: Path) -> sqlite3.Connection:
    """A database as it stands, with what another program logged beside it.

    Without such a log, nothing is written to the folder: a reader makes an empty log and a
    ``-shm``, and is not allowed to remove them.
    """
    log = path.with_name(path.name + "-wal")
    logged = log.is_file() and log.stat().st_size > 0
    settings = "mode=ro" if logged else "mode=ro&immutable=1"
    return sqlite3.connect(f"{path.absolute().as_uri()}?{settings}", uri=True)


_DISK_ERRORS = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL)
"""Reading a database with a log takes room too, beside it."""
