"""Writing HDF5 files whole or not at all."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import h5py

from reconstruct.workspace import atomic_path


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
