"""HDF5 files: written whole or not at all; those of other programs read with care."""

from __future__ import annotations

import contextlib
import errno
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from reconstruct.atomic import atomic_path
from reconstruct.files import open_regular

UNREADABLE = (
    *(OSError, LookupError, ValueError, RuntimeError),
    *(TypeError, AttributeError, MemoryError),
)
"""What h5py raises for a file that is cut off, damaged, or of another layout."""
LIMIT_BYTES = 1 << 31
"""Of an array that is read at once."""


def read_array(path: Path, name: str) -> NDArray[Any]:
    """An array of numbers in a file that another program wrote.

    Raises OSError if there is no such file, ValueError for anything that is wrong with its content:
    HDF5 trusts an array that claims more rows than the file holds.
    """
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    try:
        with h5py.File(path, "r") as file:
            found = file[name]
            if found.dtype.kind not in "biuf" or found.nbytes > LIMIT_BYTES:
                raise ValueError(f"{name} claims {found.nbytes} bytes of {found.dtype}")
            return np.asarray(found[()])
    except UNREADABLE as error:
        raise ValueError(f"no readable array {name!r} in it ({str(error)[:200]})") from error


def texts(values: Sequence[str]) -> NDArray[np.bytes_]:
    """Texts as a dataset of one length, the longest one's, in UTF-8.

    Texts of many lengths go to a heap of HDF5's; of a damaged one it reads on for ever (2.0.0).
    """
    encoded = [value.encode("utf-8") for value in values]
    length = max(map(len, encoded), default=0)
    return np.array(encoded, h5py.string_dtype("utf-8", max(length, 1)))


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file for reading. Raises OSError if it is no regular file, or damaged."""
    open_regular(path).close()  # HDF5 would wait for a pipe
    return h5py.File(path, "r")


@contextlib.contextmanager
def new_hdf5(path: Path, mark: str = "") -> Iterator[h5py.File]:
    """An empty HDF5 file that stands at ``path`` when the block ends well.

    It is made in memory, as HDF5 crashes the process when it cannot write on closing a file.
    mark: see `atomic_path`. Raises OSError if the disk has no room.
    """
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        yield file
    with atomic_path(path, mark) as temporary:
        temporary.write_bytes(image.getbuffer())
