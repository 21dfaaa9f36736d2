"""NumPy's .npz archives that another program wrote.

NumPy trusts the header of an array: one that claims 10**12 rows is allocated before the file turns
out to be short. Here sizes are compared with the archive's first, and an archive is bounded.
"""

from __future__ import annotations

import math
import threading
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from reconstruct.files import open_regular

UNREADABLE = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(RuntimeError, MemoryError, RecursionError, SyntaxError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What zipfile, zlib and NumPy raise for what is damaged, encrypted or packed in another way."""

_PARSING = threading.Lock()
"""NumPy parses an array's head as Python, at which Python 3.11 fails now and then if two threads do
so at once (SystemError: AST constructor recursion depth mismatch)."""


def read_npz(
    path: Path, limit_bytes: int, read_objects: Callable[[IO[bytes]], Any] | None = None
) -> dict[str, Any]:
    """Array name -> array, read-only.

    Args:
        path: a regular file.
        limit_bytes: of all arrays together, unpacked.
        read_objects: reads what an array of Python objects holds; None: there may be none.

    Raises:
        ValueError: for anything that is wrong with the content; OSError: with the file.
    """
    with open_regular(path) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                entries = [e for e in archive.infolist() if e.filename.endswith(".npy")]
                total = sum(entry.file_size for entry in entries)
                if total > limit_bytes:
                    raise ValueError(f"{total} bytes, more than the limit of {limit_bytes}")
                found = {}
                for entry in entries:
                    with archive.open(entry) as content:
                        name = entry.filename.removesuffix(".npy")
                        found[name] = _array(content, entry.file_size, read_objects)
                return found
        except UNREADABLE as error:
            raise ValueError((str(error).strip() or type(error).__name__)[:300]) from error


def _array(file: IO[bytes], size: int, read_objects: Callable[[IO[bytes]], Any] | None) -> Any:
    version = npy.read_magic(file)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    with _PARSING:
        shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        if read_objects is None:
            raise ValueError("holds Python objects, which are not read")
        return np.asarray(read_objects(file)).reshape(shape)
    expected, left = math.prod(shape) * dtype.itemsize, size - file.tell()
    if min(shape, default=0) < 0 or expected != left:
        raise ValueError(f"claims shape {shape} of {dtype}, but has {left} bytes")
    array = np.frombuffer(file.read(left), dtype)
    return array.reshape(shape, order="F" if fortran else "C")
