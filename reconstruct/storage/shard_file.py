"""One shard: a few keyed records in an HDF5 file.

Each record (of an image, or of a pair) has a key, a fingerprint, and rows in every field; the rows
of all records of a field stand in one dataset, cut by offsets:

    keys          (R,) str
    fingerprints  (R,) str
    offsets/F     (R + 1,) int64      record r owns the rows offsets[r]:offsets[r + 1] of F
    fields/F      (rows, ...)

A shard is written whole or not at all (`atomic_path`), so it never needs repair.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from reconstruct.storage.hdf5 import new_hdf5, open_hdf5, texts

Fields = dict[str, NDArray[Any]]
SMALL_BYTES = 2 << 20
"""Fields of at most this size are kept in memory as long as their shard is open."""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One keyed entry: its rows in each field. All records of a folder have the same fields."""

    key: str
    fingerprint: str
    fields: Fields


class OpenShard:
    """A shard that is open for reading."""

    def __init__(self, path: Path) -> None:
        self.file = open_hdf5(path)
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
            self._offsets[name] = checked_offsets(self.file, name, self.size)
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


def checked_texts(file: h5py.File, name: str, size: int) -> list[str]:
    """The texts in a dataset. Raises ValueError if there are more than the file has room for."""
    if file[name].nbytes > size:
        raise ValueError(f"{name} claims {file[name].nbytes} bytes of a file of {size}")
    return [str(text) for text in file[name].asstr()[:]]


def checked_offsets(file: h5py.File, name: str, size: int) -> NDArray[np.int64]:
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


def write_shard(path: Path, records: list[Record]) -> None:
    """Write records (at least one) as the shard ``path``, whole or not at all."""
    # A worker that was given up for lost may still write the same shard as its successor.
    with new_hdf5(path, f".{socket.gethostname()}-{os.getpid()}") as file:
        file["keys"] = texts([record.key for record in records])
        file["fingerprints"] = texts([record.fingerprint for record in records])
        for name in records[0].fields:
            parts = [record.fields[name] for record in records]
            offsets = np.cumsum([0, *map(len, parts)], dtype=np.int64)
            file[f"offsets/{name}"] = offsets
            file[f"fields/{name}"] = np.concatenate(parts)
