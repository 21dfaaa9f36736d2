"""Keyed records in HDF5 shards: the unit of work, of commit and of resume.

A shard ``part-00003.h5`` holds a few records (images, or pairs). Each has a key, a fingerprint,
and rows in every field; the rows of all records of a field stand in one dataset, cut by offsets:

    keys          (R,) str
    fingerprints  (R,) str
    offsets/F     (R + 1,) int64      record r owns the rows offsets[r]:offsets[r + 1] of F
    fields/F      (rows, ...)

A shard is written whole or not at all (`atomic_path`), so it never needs repair. Where a key
stands in several shards the last shard wins; `compact` removes what is superseded.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from reconstruct.errors import ArtifactError
from reconstruct.storage.hdf5 import UNREADABLE, new_hdf5
from reconstruct.workspace import TEMPORARY, remove

logger = logging.getLogger(__name__)
Fields = dict[str, NDArray[Any]]
OPEN_FILES = 16
"""Shards of a store that stay open for reading."""
SMALL_BYTES = 2 << 20
"""Fields of at most this size are kept in memory as long as their shard is open."""
SEEN_S = 120.0
"""Time after which what one machine wrote to a shared folder is seen by all others."""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One keyed entry: its rows in each field. All records of a folder have the same fields."""

    key: str
    fingerprint: str
    fields: Fields


@dataclass(frozen=True, slots=True)
class _Place:
    fingerprint: str
    shard: Path
    row: int


class _OpenShard:
    """A shard that is open for reading."""

    def __init__(self, path: Path) -> None:
        self.file = h5py.File(path, "r")
        self.size = path.stat().st_size
        self._offsets: dict[str, NDArray[np.int64]] = {}
        self._rows: dict[str, Any] = {}
        self._whole: dict[str, NDArray[Any]] = {}

    @cached_property
    def names(self) -> list[str]:
        """The names of the fields."""
        return list(self.file["fields"])

    def offsets(self, name: str) -> NDArray[np.int64]:
        """(R + 1,) offsets of the records in a field. Raises ValueError if they are damaged."""
        if name not in self._offsets:
            self._offsets[name] = _checked_offsets(self.file, name, self.size)
        return self._offsets[name]

    def read(self, name: str, row: int) -> NDArray[Any]:
        """The rows of a record in a field.

        A small field is read in one piece when it is asked for a second time: records are mostly
        read in the order in which they are stored, and each access costs as much as a megabyte.
        """
        start, stop = self.offsets(name)[row : row + 2]
        if name in self._whole:
            return self._whole[name][start:stop].copy()
        if name not in self._rows:
            self._rows[name] = self.file["fields"][name]
        elif self._rows[name].nbytes <= SMALL_BYTES:
            self._whole[name] = self._rows[name][:]
            return self._whole[name][start:stop].copy()
        rows: NDArray[Any] = self._rows[name][start:stop]
        return rows


class ShardStore:
    """The shards of one folder. One writer at a time: the run that holds the workspace's lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places: dict[str, _Place] | None = None
        self._dirty: set[Path] = set()  # shards that hold superseded records, or nothing readable
        self._lengths: dict[str, dict[str, int]] = {}  # of records in a field
        self._files: OrderedDict[Path, _OpenShard] = OrderedDict()
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

    def clean(self) -> None:
        """Remove what a killed run left uncommitted."""
        for path in self.folder.glob(f"*{TEMPORARY}"):
            remove(path)

    def _place(self, key: str) -> _Place:
        place = self._index().get(key)
        if place is None:
            raise ArtifactError(f"{self.folder}: holds nothing for {key!r}; run its stage again")
        return place

    def _open(self, shard: Path) -> _OpenShard:
        if shard not in self._files:
            self._files[shard] = _OpenShard(shard)
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
        _write_shard(path, records)
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
                _write_shard(path, records)
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
            with h5py.File(path, "r") as file:
                size = path.stat().st_size
                keys, prints = (_checked_texts(file, n, size) for n in ("keys", "fingerprints"))
            rows = list(enumerate(zip(keys, prints, strict=True)))
        except UNREADABLE as error:
            logger.warning("%s: unreadable, counts as missing (%s)", path, error)
            self._dirty.add(path)
            return
        for row, (key, value) in rows:
            if key in places:
                self._dirty.add(places[key].shard)
            places[key] = _Place(value, path, row)


def _checked_texts(file: h5py.File, name: str, size: int) -> list[str]:
    """The texts in a dataset. Raises ValueError if there are more than the file has room for."""
    if file[name].nbytes > size:
        raise ValueError(f"{name} claims {file[name].nbytes} bytes of a file of {size}")
    return [str(text) for text in file[name].asstr()[:]]


def _checked_offsets(file: h5py.File, name: str, size: int) -> NDArray[np.int64]:
    """Offsets of the records in field ``name``.

    Raises ValueError if the records do not lie within the field, or if this claims more than the
    ``size`` bytes of the file: of a damaged or edited file, arrays of any size would be made.
    """
    records, field, offsets = len(file["keys"]), file["fields"][name], file["offsets"][name]
    if offsets.shape != (records + 1,) or offsets.dtype.kind != "i":
        raise ValueError(f"offsets of {name} are not those of {records} records")
    if field.ndim < 1 or field.dtype.kind not in "biuf":
        raise ValueError(f"{name} is no array of numbers")
    if field.nbytes > size:
        raise ValueError(f"{name} claims {field.nbytes} bytes of a file of {size}")
    cuts: NDArray[np.int64] = offsets[:]
    if cuts[0] != 0 or cuts[-1] > len(field) or (np.diff(cuts) < 0).any():
        raise ValueError(f"offsets of {name} lie outside of its {len(field)} rows")
    return cuts


def _unreadable(shard: Path, error: Exception) -> ArtifactError:
    return ArtifactError(f"{shard}: cannot be read ({error}); delete it and run again")


def _number(path: Path) -> int:
    digits = path.name[len("part-") : -len(".h5")]
    return int(digits) if digits.isdigit() else -1


def _write_shard(path: Path, records: list[Record]) -> None:
    # A worker that was given up for lost may still write the same shard as its successor.
    with new_hdf5(path, f".{socket.gethostname()}-{os.getpid()}") as file:
        text = h5py.string_dtype("utf-8")
        file.create_dataset("keys", data=[record.key for record in records], dtype=text)
        prints = [record.fingerprint for record in records]
        file.create_dataset("fingerprints", data=prints, dtype=text)
        for name in records[0].fields:
            parts = [record.fields[name] for record in records]
            offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
            file[f"offsets/{name}"] = offsets
            file[f"fields/{name}"] = np.concatenate(parts)


class ShardWriter:
    """Commits what is added in shards of ``size`` records, and the rest when flushed.

    The cut depends only on the order of the records: a run that was killed and goes on with what
    is missing writes the same shards as one that was never killed.
    """

    def __init__(self, store: ShardStore, size: int) -> None:
        self._store, self._size = store, size
        self._buffer: list[Record] = []

    def add(self, record: Record) -> None:
        """Keep a record for the present shard; commits the shard when it is full."""
        self._buffer.append(record)
        if len(self._buffer) == self._size:
            self.flush()

    def flush(self) -> None:
        """Commit what is left."""
        if self._buffer:
            self._store.write(self._buffer)
            self._buffer = []


def shard_size(total: int, low: int, high: int) -> int:
    """Records a shard, so that small jobs lose little when killed and large ones have few files."""
    return min(max(total // 16, low), high)
