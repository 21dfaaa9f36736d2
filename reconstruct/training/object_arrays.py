"""NumPy's .npz with arrays of Python objects, read without executing code from the file.

The scene files of D2-Net's release hold dicts and None in object arrays, which NumPy reads with
pickle: with ``allow_pickle=True`` a file from elsewhere could run any code. Here only arrays,
numbers, strings and the containers around them are created.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from reconstruct.errors import DataError

_ALLOWED = {
    (f"numpy.{core}.multiarray", name)
    for core in ("core", "_core")
    for name in ("_reconstruct", "scalar")
} | {
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _Plain(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"holds {module}.{name}, which is not read")
        return super().find_class(module, name)


def read_npz(path: Path) -> dict[str, Any]:
    """Array name -> array. Raises DataError naming the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                Path(entry).stem: _read(archive, entry)
                for entry in archive.namelist()
                if entry.endswith(".npy")
            }
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise DataError(f"{path}: not a scene file that can be read ({error})") from error


def _read(archive: zipfile.ZipFile, entry: str) -> Any:
    with archive.open(entry) as file:
        version = npy.read_magic(file)
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read_header(file)
        if dtype.hasobject:
            return np.asarray(_Plain(file, encoding="latin1").load()).reshape(shape)
    with archive.open(entry) as file:
        return npy.read_array(file, allow_pickle=False)
