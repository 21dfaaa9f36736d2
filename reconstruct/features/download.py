"""Files that are downloaded once, kept in a cache, and checked each time they are used.

Beside ``NAME`` is ``NAME.sha256`` with the hash of the download. A file that was placed there by
hand is accepted as it is, and its hash recorded on first use.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from reconstruct.errors import WeightsError

CACHE_VARIABLE: Final = "RECONSTRUCT_CACHE"
_CHUNK_BYTES: Final = 1 << 20
_TIMEOUT_S: Final = 30.0


def default_cache_dir() -> Path:
    """``$RECONSTRUCT_CACHE``, or the user's cache folder (``$XDG_CACHE_HOME``)."""
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "reconstruct"


def cached_download(name: str, urls: Sequence[str], cache_dir: Path | None = None) -> Path:
    """Path of a file in the cache; it is downloaded if it is not there.

    Args:
        name: Name of the file in the cache.
        urls: Addresses; the first that answers is used.
        cache_dir: The cache folder; None: `default_cache_dir`.

    Raises:
        WeightsError: No address answers (the message names them, and the path where the file may be
            placed by hand), or the cached file is not what was downloaded.
    """
    path = (cache_dir or default_cache_dir()) / name
    if path.is_file():
        _check(path)
        return path
    failures: list[str] = []
    for url in urls:
        try:
            _download(url, path)
            return path
        except (OSError, ValueError) as error:  # URLError and HTTPError are OSErrors
            failures.append(f"  {url}: {error}")
    raise WeightsError(
        f"{name}: not in the cache, and the download failed:\n"
        + "\n".join(failures)
        + f"\nDownload it on a machine that is online and put it at {path}, "
        "or set `mirrors` to an address that has it."
    )


def _download(url: str, path: Path) -> None:
    """Fetch ``url`` to ``path``; the file appears complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _temporary(path) as (temporary, file):
        digest = hashlib.sha256()
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:
            total = int(response.headers.get("Content-Length") or 0)
            received = 0
            for chunk in _with_progress(response, path.name, total):
                file.write(chunk)
                digest.update(chunk)
                received += len(chunk)
        if not received or (total and received != total):
            raise OSError(f"incomplete: {received} of {total} bytes")
        file.flush()
        os.fsync(file.fileno())
        file.close()
        # The hash first: killed in between, the next run sees no file and downloads again.
        _hash_path(path).write_text(f"{digest.hexdigest()}  {path.name}\n", encoding="ascii")
        os.replace(temporary, path)


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[tuple[str, BinaryIO]]:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield name, file
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def _with_progress(response: BinaryIO, name: str, total: int) -> Iterator[bytes]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    # A console of its own: the run's progress display may be live on the shared one.
    with Progress(*columns, transient=True, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=total or None)
        while chunk := response.read(_CHUNK_BYTES):
            progress.advance(task, len(chunk))
            yield chunk


def _check(path: Path) -> None:
    """Compare a cached file with its recorded hash; record the hash if there is none."""
    digest = _sha256(path)
    try:
        recorded = _hash_path(path).read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        recorded = []
    if not recorded:
        _hash_path(path).write_text(f"{digest}  {path.name}\n", encoding="ascii")
    elif recorded[0] != digest:
        raise WeightsError(
            f"{path}: its SHA-256 is {digest}, but {recorded[0]} was recorded when it came; "
            f"delete it and {_hash_path(path).name} to fetch it again"
        )


def _hash_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
