"""SHA-256 of large files, remembered while their size and time of change stay the same."""

from __future__ import annotations

import json
from pathlib import Path

from reconstruct.atomic import atomic_path
from reconstruct.files import read_json
from reconstruct.fingerprints import file_hash


class ContentHashes:
    """Hashes by path. New ones are stored when `save` is called.

    The scans of InLoc are half a terabyte: to read them once is enough.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list[object]] | None = None
        self._changed = False

    def __getitem__(self, file: Path) -> str | None:
        """Hash of the file's content; None if it cannot be read."""
        known = self._load()
        try:
            stat = file.stat()
            state: list[object] = [stat.st_size, stat.st_mtime_ns]
            key = str(file.resolve())
            if known.get(key, [])[:2] != state:
                known[key] = [*state, file_hash(file)]
                self._changed = True
            return str(known[key][2])
        except OSError:
            return None

    def save(self) -> None:
        """Write what was learned."""
        if self._changed:
            with atomic_path(self._path) as temporary:
                temporary.write_text(json.dumps(self._load(), indent=0), encoding="utf-8")
            self._changed = False

    def _load(self) -> dict[str, list[object]]:
        if self._known is None:
            try:
                self._known = dict(read_json(self._path))
            except (OSError, ValueError, TypeError):
                self._known = {}  # unreadable counts as missing: files are read again
        return self._known
