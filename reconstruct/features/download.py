"""Files that are downloaded once, kept in a cache, and compared with a known hash at each use.

So it does not matter which address a file came from, or who put it into the cache.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

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
from reconstruct.fingerprints import file_hash

CACHE_VARIABLE: Final = "RECONSTRUCT_CACHE"
MAX_BYTES: Final = 1 << 32
_CHUNK_BYTES: Final = 1 << 16
_TIMEOUT_S: Final = 30.0


def default_cache_dir() -> Path:
    """``$RECONSTRUCT_CACHE``, or the user's cache folder (``$XDG_CACHE_HOME``)."""
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "reconstruct"


def cached_download(
    name: str, urls: Sequence[str], known: str, cache_dir: Path | None = None
) -> Path:
    """The path of ``name`` in the cache, downloaded from the first of ``urls`` that has it.

    Args:
        name: the file's name.
        urls: http or https addresses, tried in this order.
        known: hash (hex) that the file must have, wherever it comes from: its SHA-256, 64 digits,
            or the SHA-1 of its git object, 40.
        cache_dir: where it is kept; None: `default_cache_dir`.

    Raises:
        WeightsError: if no address has it (naming them and the path where the file may be put by
            hand), or if another file is in the cache.
    """
    path = (cache_dir or default_cache_dir()) / name
    if path.is_file():
        kind, found = _hash_like(known, path)
        if found != known:
            raise WeightsError(
                f"{path}: its {kind} is {found}, but the file of that name has {known}; delete it "
                "to fetch it again, or give your file's path as `weights`"
            )
        return path
    failures: list[str] = []
    for url in urls:
        try:
            _download(url, path, known)
            return path
        except (OSError, ValueError) as error:  # those of requests are OSErrors
            failures.append(f"  {url}: {str(error)[:300]}")
    raise WeightsError(
        f"{name}: not in the cache, and the download failed:\n"
        + "\n".join(failures)
        + f"\nDownload it on a machine that is online and put it at {path}, "
        "or give a path as `weights`."
    )


def _download(url: str, path: Path, known: str) -> None:
    """Fetch ``url`` to ``path``, which appears complete or not at all."""
    import pooch

    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("not an http or https address")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        with _Bar(path.name) as bar:
            fetch = pooch.HTTPDownloader(
                progressbar=bar, chunk_size=_CHUNK_BYTES, timeout=_TIMEOUT_S
            )
            fetch(url, str(temporary), None)
        kind, found = _hash_like(known, temporary)
        if found != known:
            raise OSError(f"its {kind} is {found}, but this program asks for {known}")
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)


def _hash_like(known: str, path: Path) -> tuple[str, str]:
    """The kind of a hash, and the hash (hex) of this kind of a file."""
    if len(known) == 64:
        return "SHA-256", file_hash(path)
    return "git object", git_object(path)


def git_object(path: Path) -> str:
    """SHA-1 (hex) of a file as git stores it: ``blob``, a space, its size, a zero byte, its bytes.

    What `git hash-object` says, and what lists of a repository's files show even where the bytes
    are not at hand (Chacon and Straub, Pro Git, 10.2).
    """
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


class _Bar:
    """What pooch tells its progress to. Also where an endless answer is stopped."""

    def __init__(self, name: str) -> None:
        self.name, self.total, self._received = name, 0, 0

    def __enter__(self) -> _Bar:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        # A console of its own: the run's progress display may be live on the shared one.
        self._progress = Progress(*columns, transient=True, console=Console(stderr=True))
        self._progress.start()
        self._task = self._progress.add_task(self.name, total=None)
        return self

    def __exit__(self, *_: Any) -> None:
        self._progress.stop()

    def update(self, received: int) -> None:
        self._received += received
        if self._received > MAX_BYTES:
            raise OSError(f"more than {MAX_BYTES} bytes")
        self._progress.update(self._task, advance=received, total=self.total or None)

    def reset(self) -> None:
        """pooch sets the bar back and fills it at the end, as chunks may have been shorter."""
        self._received = 0
        self._progress.reset(self._task)

    def close(self) -> None:
        pass
