"""NumPy's .npz with arrays of Python objects, read without executing code from the file.

The scene files of D2-Net's release hold dicts and None in object arrays, which NumPy reads with
pickle: with ``allow_pickle=True`` a file from elsewhere could run any code. Here only arrays,
numbers, strings and the containers around them are created.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import IO, Any

from reconstruct.errors import DataError
from reconstruct.storage import arrays as storage

LIMIT_BYTES = 1 << 33

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
        return storage.read_npz(path, LIMIT_BYTES, _objects)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a scene file that can be read ({error})") from error


def _objects(file: IO[bytes]) -> Any:
    try:
        return _Plain(file, encoding="latin1").load()
    except pickle.UnpicklingError as error:
        raise ValueError(str(error)) from error
