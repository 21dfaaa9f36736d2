"""MATLAB files up to v7: numbers, cells and structs, read with care.

SciPy reads more kinds of variables, but in C, and trusts a file: a damaged one can end the process.
Format: The MathWorks, "MAT-File Format", chapter 1. (v7.3 is HDF5, see `storage.hdf5`.)
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from reconstruct.files import open_regular

LIMIT_BYTES: Final = 1 << 31
"""Of a variable, without its compression."""
_HEADER_BYTES: Final = 128
_CHUNK_BYTES: Final = 1 << 18
_NUMBERS: Final = {
    **{1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4"},
    **{9: "f8", 12: "i8", 13: "u8"},
}
"""Type of an element -> type of its numbers."""
_MATRIX: Final = 14
_COMPRESSED: Final = 15
_CELL, _STRUCT, _OBJECT, _NUMERIC = 1, 2, 3, range(6, 16)
"""Classes of matrices."""
_NOTHING: Final = (0, memoryview(b""))
"""In place of an element that is not there."""
_COMPLEX: Final = 0x800
_DEEPEST: Final = 32
"""Matrices in matrices: cells, and fields of structs."""


def read_matlab(path: Path, name: str) -> Any:
    """A variable of a file.

    Args:
        path: The file.
        name: The variable's name.

    Returns:
        Numbers: an array, of the type as which they are stored. Cells: a list of their contents, in
        MATLAB's order (the first index counts fastest). A struct or object: a dictionary; an
        array of structs: a list of them. Anything else, such as text: None.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is damaged, of another kind, or has no such variable.
    """
    with open_regular(path) as file:
        try:
            variable, order = _variable(file, name)
            ((_, content),) = _elements(variable, order)
            return _matrix(content, order)
        except (ValueError, LookupError, OverflowError, MemoryError, zlib.error) as error:
            raise ValueError(f"no readable variable {name!r} in it ({error})") from error


def _variable(file: BinaryIO, name: str) -> tuple[memoryview, str]:
    """The element of a variable, without compression; and the order of its bytes: ``<`` or
    ``>``."""
    order = {b"IM": "<", b"MI": ">"}.get(file.read(_HEADER_BYTES)[126:])
    if order is None:
        raise ValueError("not a MATLAB file of version 5 to 7")
    while len(tag := file.read(8)) == 8:
        kind, size = struct.unpack(f"{order}II", tag)
        following = file.tell() + size
        chunks = _chunks(file, size)
        chunks = _inflated(chunks) if kind == _COMPRESSED else itertools.chain([tag], chunks)
        found = io.BytesIO()
        found.write(b"".join(itertools.islice(chunks, 2)))
        if _variable_name(found.getvalue(), order) == name.encode():
            for chunk in chunks:
                found.write(chunk)
                if found.tell() > LIMIT_BYTES:
                    raise ValueError(f"it has more than {LIMIT_BYTES} bytes")
            return found.getbuffer(), order
        file.seek(following)
    raise LookupError("it is not there")


def _chunks(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The next bytes of a file, or as many of them as it has."""
    while size and (chunk := file.read(min(size, _CHUNK_BYTES))):
        size -= len(chunk)
        yield chunk


def _inflated(chunks: Iterator[bytes]) -> Iterator[bytes]:
    inflate = zlib.decompressobj()
    return (inflate.decompress(chunk) for chunk in chunks)


def _variable_name(start: bytes, order: str) -> bytes:
    """From the first bytes of a variable: after its flags and its shape comes its name."""
    inner = _elements(memoryview(start)[8:], order)
    return bytes(next(itertools.islice(inner, 2, None), (0, b""))[1])


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and data of each element."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        if kind >> 16:  # up to four bytes stand in place of their count
            kind, size, first, following = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            first, following = at + 8, at + 8 + -(-size // 8) * 8
        if first + size > min(following, len(data)):
            raise ValueError("an element is cut off")
        yield kind, data[first : first + size]
        at = following


def _matrix(content: memoryview, order: str, depth: int = 0) -> Any:
    """What a matrix holds, see `read_matlab`."""
    if depth > _DEEPEST:
        raise ValueError("matrices in matrices without end")
    if not content:  # how an empty matrix may be stored
        return np.zeros((0, 0))
    elements = _elements(content, order)
    flags = int(_numbers(next(elements, _NOTHING), order)[0])
    kind = flags & 0xFF
    if kind not in (_CELL, _STRUCT, _OBJECT, *_NUMERIC):
        return None  # text, functions and what is of no kind in the format: not walked
    shape, _, *inner = elements  # between them is the name
    if kind in _NUMERIC:
        lengths = [int(n) for n in _numbers(shape, order)]
        if flags & _COMPLEX or min(lengths) < 0:
            raise ValueError(f"complex numbers, or of shape {lengths}")
        return _numbers(inner[0], order).reshape(lengths, order="F")
    if kind == _CELL:
        return _matrices(inner, order, depth)
    if kind == _OBJECT:
        inner = inner[1:]  # after the name of its class, as a struct
    length, names = int(_numbers(inner[0], order)[0]), bytes(inner[1][1])
    padded = [names[at : at + length] for at in range(0, len(names), length)]
    fields = [field.split(b"\0")[0].decode() for field in padded]
    values = _matrices(inner[2:], order, depth)
    rows = [values[at : at + len(fields)] for at in range(0, len(values), len(fields) or 1)]
    structs = [dict(zip(fields, row, strict=True)) for row in rows]
    return structs[0] if len(structs) == 1 else structs


def _matrices(elements: list[tuple[int, memoryview]], order: str, depth: int) -> list[Any]:
    if any(kind != _MATRIX for kind, _ in elements):
        raise ValueError("something else in place of a matrix")
    return [_matrix(content, order, depth + 1) for _, content in elements]


def _numbers(element: tuple[int, memoryview], order: str) -> NDArray[Any]:
    """(N,) numbers of an element."""
    kind, data = element
    if kind not in _NUMBERS:
        raise ValueError(f"numbers of unknown type {kind}")
    return np.frombuffer(data, order + _NUMBERS[kind])
