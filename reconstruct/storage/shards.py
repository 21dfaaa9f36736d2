"""A folder of shards, ``part-00003.h5``: the unit of work, of commit and of resume.

Where a key stands in several shards (see `shard_file`) the last one wins; `ShardStore.compact`
removes what is superseded.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.atomic import remove
from reconstruct.errors import ArtifactError
from reconstruct.storage.hdf5 import UNREADABLE, open_hdf5
from reconstruct.storage.shard_file import Fields, OpenShard, Record, checked_texts, write_shard

logger = logging.getLogger(__name__)
OPEN_FILES = 16
"""Shards of a store that stay open for reading."""
SEEN_S = 120.0
"""Time after which what one machine wrote to a shared folder is seen by all others."""


@dataclass(frozen=True, slots=True)
class _Place:
    fingerprint: str
    shard: Path
    row: int


class ShardStore:
    """The shards of one folder. One writer at a time: the run that holds the workspace's lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places: dict[str, _Place] | None = None
        self._dirty: set[Path] = set()  # shards that hold superseded records, or nothing readable
        self._lengths: dict[str, dict[str, int]] = {}  # of records in a field
        self._files: OrderedDict[Path, OpenShard] = OrderedDict()
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, Any]:
        # For other processes, which open the files for themselves. They are told where the records
        # are: of a folder on a network, their list of files may be older.
        return {"folder": self.folder, "places": self._places}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]
        self._places = state["places"]

    def fingerprints(self) -> dict[str, str]:
        """Key -> fingerprint of all records. Unreadable shards count as missing (logged)."""
        return {key: place.fingerprint for key, place in self._index().items()}

    def __contains__(self, key: object) -> bool:
        return key in self._index()

    def read(self, key: str, only: str | None = None) -> Fields:
        """The fields (or ``only`` one) of a record.

        Raises ArtifactError if it is absent or unreadable.
        """
        place = self._place(key)
        try:
            with self._lock:
                opened = self._open(place.shard)
                names = [only] if only else opened.names
                return {name: opened.read(name, place.row) for name in names}
        except UNREADABLE as error:
            raise _unreadable(place.shard, error) from error

    def fields(self, key: str) -> list[str]:
        """Names of the fields of a record. Raises ArtifactError as `read` does."""
        place = self._place(key)
        try:
            with self._lock:
                return list(self._open(place.shard).names)
        except UNREADABLE as error:
            raise _unreadable(place.shard, error) from error

    @contextmanager
    def decoding(self, key: str) -> Iterator[None]:
        """Within it, arrays that are not those of a record raise ArtifactError naming its key."""
        try:
            yield
        except (LookupError, ValueError, TypeError, AttributeError, OverflowError) as error:
            raise ArtifactError(
                f"{self.folder}: what is stored of {key!r} is damaged ({str(error)[:200]}); run "
                "its stage again with --force"
            ) from error

    def lengths(self, field: str) -> dict[str, int]:
        """Key -> number of rows of ``field`` in its record, for all records; no row is read."""
        if field not in self._lengths:
            self._lengths[field] = self._find_lengths(field)
        return self._lengths[field]

    def _find_lengths(self, field: str) -> dict[str, int]:
        by_shard: dict[Path, list[tuple[str, int]]] = defaultdict(list)
        for key, place in self._index().items():
            by_shard[place.shard].append((key, place.row))
        result: dict[str, int] = {}
        for shard, members in sorted(by_shard.items()):
            try:
                with self._lock:
                    counts = np.diff(self._open(shard).offsets(field)).tolist()
            except UNREADABLE as error:
                raise _unreadable(shard, error) from error
            result |= {key: counts[row] for key, row in members}
        return result

    def column(self, field: str, keys: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
        """Key -> its rows of a small ``field``; each shard is read once. keys: None for all."""
        index = self._index()
        by_shard: dict[Path, list[tuple[str, int]]] = defaultdict(list)
        for key in index if keys is None else keys:
            if key not in index:
                raise ArtifactError(f"{self.folder}: holds nothing for {key!r}; run its stage")
            by_shard[index[key].shard].append((key, index[key].row))
        result: dict[str, NDArray[Any]] = {}
        for shard, members in sorted(by_shard.items()):
            try:
                with self._lock:
                    opened = self._open(shard)
                    offsets, rows = opened.offsets(field), opened.file["fields"][field][:]
            except UNREADABLE as error:
                raise _unreadable(shard, error) from error
            result |= {key: rows[offsets[row] : offsets[row + 1]] for key, row in members}
        return result

    def _place(self, key: str) -> _Place:
        place = self._index().get(key)
        if place is None:
            raise ArtifactError(f"{self.folder}: holds nothing for {key!r}; run its stage again")
        return place

    def _open(self, shard: Path) -> OpenShard:
        if shard not in self._files:
            self._files[shard] = OpenShard(shard)
            while len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)[1].file.close()
        self._files.move_to_end(shard)
        return self._files[shard]

    def _close(self) -> None:
        """Forget what was read: the files are about to change."""
        with self._lock:
            self._lengths = {}
            while self._files:
                self._files.popitem()[1].file.close()

    def write(self, records: list[Record], number: int | None = None) -> Path:
        """Commit ``records`` (at least one) as shard ``number``; returns its path.

        number: from `free_numbers`; None: the next after the last one.
        """
        self._close()
        if number is None:
            number = max((_number(path) for path in self._shards()), default=-1) + 1
        path = self.folder / f"part-{number:05d}.h5"
        write_shard(path, records)
        if self._places is not None:
            self._add(path, self._places)
        return path

    def free_numbers(self, chunks: Iterable[Iterable[str]]) -> list[int]:
        """A number for the shard of each of ``chunks`` of keys, -1 for one without keys.

        It is the smallest that is free and beyond the shards that hold the keys' present records,
        which the new ones supersede. Chunks that are still missing after a run was killed are given
        the same numbers again, whichever of the others had been written.
        """
        places = self._index()
        taken = {_number(path) for path in self._shards()}
        numbers, lowest = [], 0
        for keys in chunks:
            keys = list(keys)
            if not keys:
                numbers.append(-1)
                continue
            last = max((_number(places[key].shard) for key in keys if key in places), default=-1)
            while lowest in taken:
                lowest += 1
            number = max(lowest, last + 1)
            while number in taken:
                number += 1
            taken.add(number)
            numbers.append(number)
        return numbers

    def see(self, made: Mapping[str, str], patience_s: float = SEEN_S) -> None:
        """Take note of records that another process may have written.

        Args:
            made: Their keys and fingerprints.
            patience_s: How long to wait for them: a folder on a network is seen with a delay.

        Raises:
            ArtifactError: They are not there.
        """
        end = time.monotonic() + patience_s
        while True:
            places = self._index()
            unseen = [k for k, v in made.items() if k not in places or places[k].fingerprint != v]
            if not unseen:
                return
            if time.monotonic() > end:
                raise ArtifactError(
                    f"{self.folder}: {len(unseen)} of {len(made)} records that were written are "
                    "not seen by this process; give a folder as --output that all machines share"
                )
            self._close()
            self._places = None
            if self._index().keys() == places.keys():
                time.sleep(1.0)

    def compact(self) -> None:
        """Remove the records that a later shard supersedes; shards left empty go altogether."""
        kept: dict[Path, list[str]] = defaultdict(list)
        for key, place in self._index().items():
            kept[place.shard].append(key)
        for path in sorted(self._dirty):
            records = [
                Record(key, self._index()[key].fingerprint, self.read(key)) for key in kept[path]
            ]
            if records:
                self._close()
                write_shard(path, records)
            else:
                self._close()
                remove(path)
        if self._dirty:
            self._places = None

    def discard(self, condition: Callable[[str], bool]) -> None:
        """Forget, on disk too, every record whose key fulfils ``condition``."""
        index = self._index()
        self._lengths = {}
        for key in [key for key in index if condition(key)]:
            self._dirty.add(index.pop(key).shard)
        self.compact()

    def _shards(self) -> list[Path]:
        return sorted(self.folder.glob("part-*.h5"), key=_number)

    def _index(self) -> dict[str, _Place]:
        if self._places is None:
            self._places, self._dirty = {}, set()
            for path in self._shards():
                self._add(path, self._places)
        return self._places

    def _add(self, path: Path, places: dict[str, _Place]) -> None:
        try:
            with open_hdf5(path) as file:
                size = path.stat().st_size
                keys, prints = (checked_texts(file, n, size) for n in ("keys", "fingerprints"))
            rows = list(enumerate(zip(keys, prints, strict=True)))
        except UNREADABLE as error:
            logger.warning("%s: unreadable, counts as missing (%s)", path, error)
            self._dirty.add(path)
            return
        for row, (key, value) in rows:
            if key in places:
                self._dirty.add(places[key].shard)
            places[key] = _Place(value, path, row)


def _unreadable(shard: Path, error: Exception) -> ArtifactError:
    return ArtifactError(f"{shard}: cannot be read ({error}); delete it and run again")


def _number(path: Path) -> int:
    digits = path.name[len("part-") : -len(".h5")]
    return int(digits) if digits.isdigit() else -1
