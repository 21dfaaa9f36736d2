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
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from reconstruct.errors import ArtifactError
from reconstruct.storage.hdf5 import new_hdf5
from reconstruct.workspace import TEMPORARY, remove

logger = logging.getLogger(__name__)
UNREADABLE = (OSError, KeyError, ValueError, RuntimeError)
"""What h5py raises for a file that is cut off, damaged, or of another layout."""
Fields = dict[str, NDArray[Any]]


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


class ShardStore:
    """The shards of one folder. One writer at a time: the run that holds the workspace's lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._places: dict[str, _Place] | None = None
        self._dirty: set[Path] = set()  # shards that hold superseded records, or nothing readable

    def fingerprints(self) -> dict[str, str]:
        """Key -> fingerprint of all records. Unreadable shards count as missing (logged)."""
        return {key: place.fingerprint for key, place in self._index().items()}

    def read(self, key: str, only: str | None = None) -> Fields:
        """The fields (or ``only`` one) of a record.

        Raises ArtifactError if it is absent or unreadable.
        """
        place = self._index().get(key)
        if place is None:
            raise ArtifactError(f"{self.folder}: holds nothing for {key!r}; run its stage again")
        try:
            with h5py.File(place.shard, "r") as file:
                return _read_row(file, place.row, only)
        except UNREADABLE as error:
            raise ArtifactError(
                f"{place.shard}: cannot be read ({error}); delete it and run again"
            ) from error

    def write(self, records: list[Record]) -> Path:
        """Commit ``records`` (at least one) as the next shard; returns its path."""
        places = self._index()
        number = max((_number(path) for path in self._shards()), default=-1) + 1
        path = self.folder / f"part-{number:05d}.h5"
        _write_shard(path, records)
        self._add(path, places)
        return path

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
                _write_shard(path, records)
            else:
                remove(path)
        self._places = None

    def discard(self, condition: Callable[[str], bool]) -> None:
        """Forget, on disk too, every record whose key fulfils ``condition``."""
        for key in [key for key in self._index() if condition(key)]:
            self._dirty.add(self._index().pop(key).shard)
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
                keys, prints = file["keys"].asstr()[:], file["fingerprints"].asstr()[:]
        except UNREADABLE as error:
            logger.warning("%s: unreadable, counts as missing (%s)", path, error)
            self._dirty.add(path)
            return
        for row, (key, value) in enumerate(zip(keys, prints, strict=True)):
            if key in places:
                self._dirty.add(places[key].shard)
            places[str(key)] = _Place(str(value), path, row)


def _number(path: Path) -> int:
    digits = path.name[len("part-") : -len(".h5")]
    return int(digits) if digits.isdigit() else -1


def _read_row(file: h5py.File, row: int, only: str | None) -> Fields:
    fields = {}
    for name in [only] if only else file["fields"]:
        start, stop = file["offsets"][name][row : row + 2]
        fields[name] = file["fields"][name][start:stop]
    return fields


def _write_shard(path: Path, records: list[Record]) -> None:
    with new_hdf5(path) as file:
        text = h5py.string_dtype("utf-8")
        file.create_dataset("keys", data=[record.key for record in records], dtype=text)
        prints = [record.fingerprint for record in records]
        file.create_dataset("fingerprints", data=prints, dtype=text)
        for name in records[0].fields:
            parts = [record.fields[name] for record in records]
            offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
            file[f"offsets/{name}"] = offsets
            file[f"fields/{name}"] = np.concatenate(parts)


def write_in_shards(store: ShardStore, records: Iterable[Record], size: int) -> Iterator[Record]:
    """Pass ``records`` on while committing every ``size`` of them as a shard.

    The cut depends only on the order of the records: a run that was killed and goes on with what
    is missing writes the same shards as one that was never killed.
    """
    buffer: list[Record] = []
    for record in records:
        buffer.append(record)
        if len(buffer) == size:
            store.write(buffer)
            buffer = []
        yield record
    if buffer:
        store.write(buffer)


class ShardWriter:
    """Commits what is added in shards of ``size`` records, and the rest when flushed."""

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


def clean_temporaries(folder: Path) -> None:
    """Remove what a killed run left uncommitted."""
    for path in folder.glob(f"*{TEMPORARY}"):
        remove(path)
