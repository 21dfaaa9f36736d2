"""Files that are downloaded once, kept in a cache, and checked each time they are used.

Beside ``NAME`` lies ``NAME.sha256`` with the hash of what was downloaded. A file that someone put
there by hand is taken as it is, and its hash recorded on first use; a ``NAME.sha256`` that was put
there before is what a download must have, whatever mirror it comes from. The same holds for a hash
that the program knows (argument ``sha256``). A download without either is accepted, with a warning.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Sequence
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
from reconstruct.files import read_text
from reconstruct.fingerprints import file_hash

logger = logging.getLogger(__name__)

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
    name: str,
    urls: Sequence[str],
    cache_dir: Path | None = None,
    *,
    sha256: str | None = None,
    otherwise: str = "set `mirrors` to an address that has it",
    accept: Callable[[Path], object] = lambda path: None,
) -> Path:
    """The path of ``name`` in the cache, downloaded from the first of ``urls`` that has it.

    Args:
        name: the file's name.
        urls: http or https addresses, tried in this order.
        cache_dir: where it is kept; None: `default_cache_dir`.
        sha256: hash (hex) that the file must have, wherever it comes from; None: not known.
        otherwise: what else the user can do where no address has it.
        accept: raises WeightsError for a file that is not what was meant, such as the page of a
            login; the next address is tried then.

    Raises:
        WeightsError: if no address has it (naming them and the path where the file may be put by
            hand), or if the cached file is not what was downloaded, or what it must be.
    """
    path = (cache_dir or default_cache_dir()) / name
    if path.is_file():
        _check(path, sha256)
        return path
    failures: list[str] = []
    for url in urls:
        try:
            _download(url, path, sha256, accept)
            return path
        except (OSError, ValueError, WeightsError) as error:  # those of requests are OSErrors
            failures.append(f"  {url}: {str(error)[:300]}")
    raise WeightsError(
        f"{name}: not in the cache, and the download failed:\n"
        + "\n".join(failures)
        + f"\nDownload it on a machine that is online and put it at {path}, "
        f"or {otherwise}."
    )


def _download(url: str, path: Path, sha256: str | None, accept: Callable[[Path], object]) -> None:
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
        if not temporary.stat().st_size:
            raise OSError("an empty answer")
        digest, recorded = file_hash(temporary), _recorded(path)
        for pinned, asking in ((sha256, "this program"), (recorded, str(_hash_path(path)))):
            if pinned not in (None, digest):
                raise OSError(f"its SHA-256 is {digest}, but {asking} asks for {pinned}")
        accept(temporary)
        if sha256 is None and recorded is None:
            logger.warning(
                "%s: came from %s; its SHA-256 is %s. No hash is known to compare it with: do so "
                "with a copy that you trust, or put %s there before",
                *(path.name, url, digest, _hash_path(path)),
            )
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        # The hash first: killed in between, the next run sees no file and downloads again.
        _record(path, digest)
        os.replace(temporary, path)


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


def _check(path: Path, sha256: str | None) -> None:
    """Compare a cached file with its known and its recorded hash; record it if there is none."""
    found, recorded = file_hash(path), _recorded(path)
    if sha256 not in (None, found):
        raise WeightsError(
            f"{path}: its SHA-256 is {found}, but the file of that name has {sha256}; delete it "
            f"and {_hash_path(path).name} to fetch it again, or give your file's path as weights"
        )
    if recorded is None:
        _record(path, found)
    elif recorded != found:
        raise WeightsError(
            f"{path}: its SHA-256 is {found}, but {recorded} was recorded when it came; "
            f"delete it and {_hash_path(path).name} to fetch it again"
        )


def _recorded(path: Path) -> str | None:
    try:
        return next(iter(read_text(_hash_path(path)).split()), None)
    except (OSError, UnicodeDecodeError):
        return None


def _record(path: Path, digest: str) -> None:
    _hash_path(path).write_text(f"{digest}  {path.name}\n", encoding="ascii")


def _hash_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
