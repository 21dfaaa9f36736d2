"""Files of an output folder, edited: other values, shapes and types, claims, bytes."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from faults.mutation import NUMBERS
from numpy.random import Generator

FORCED = {
    "features": "match",
    "global": "pair",
    "matches": "verify",
    "geometries": "align",
    "alignments": "refine",
    "refined": "verify_refined",
    "refined_geometries": "database",
    "localized": "poses",
    "database.db": "map",
}
"""Folder or file -> the stage that reads it next, and is made to run."""


def tamper(output: Path, rng: Generator) -> tuple[str, str]:
    """Edit one file of ``output``; returns what was done, and the stage that reads it next."""
    files = sorted(
        path
        for path in output.rglob("*")
        if path.is_file() and path.name not in (".lock", ".reconstruct", "log.txt")
    )
    path = files[rng.integers(len(files))]
    name = path.relative_to(output).as_posix()
    if path.suffix == ".h5" and rng.random() < 0.85:
        done = _edit_hdf5(path, rng)
    else:
        done = _edit_bytes(path, rng)
    return f"{name}: {done}", FORCED.get(name.split("/")[0], "")


def _edit_bytes(path: Path, rng: Generator) -> str:
    data = bytearray(path.read_bytes())
    kind = ["byte", "number", "cut", "empty", "junk"][rng.integers(5)]
    if kind == "byte":
        for at in rng.integers(max(len(data), 1), size=4):
            data[at : at + 1] = rng.bytes(1)
    elif kind == "number":
        at, size = int(rng.integers(max(len(data), 1))), int(rng.choice([2, 4, 8]))
        data[at : at + size] = (_number(rng) % (1 << (8 * size))).to_bytes(size, "little")
    elif kind == "cut":
        del data[len(data) // 2 :]
    elif kind == "empty":
        data.clear()
    else:
        data = bytearray(rng.bytes(len(data)))
    path.write_bytes(data)
    return kind


def _number(rng: Generator) -> int:
    return NUMBERS[rng.integers(len(NUMBERS))]


def _edit_hdf5(path: Path, rng: Generator) -> str:
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visititems(lambda n, item: names.append(n) if isinstance(item, h5py.Dataset) else None)
        name = sorted(names)[rng.integers(len(names))]
        kinds = ["value", "value", "value", "columns", "rows", "type", "scalar", "claim", "group"]
        kind = [*kinds, "gone", "text"][rng.integers(len(kinds) + 2)]
        values = file[name][()]
        if kind == "value" and values.size and values.dtype.kind in "iuf":
            flat = values.reshape(-1)
            at = rng.integers(flat.size, size=min(3, flat.size))
            bits = rng.bytes(len(at) * flat.itemsize)  # any value of the type, NaN too
            with np.errstate(all="ignore"):
                drawn = np.array([_number(rng) for _ in at], np.uint64).astype(flat.dtype)
            flat[at] = np.frombuffer(bits, flat.dtype) if rng.random() < 0.5 else drawn
            file[name][...] = values
            return f"{name} {kind}"
        del file[name]
        if kind == "columns":
            file[name] = values[..., None] if values.ndim < 2 else values[:, :-1]
        elif kind == "rows":
            file[name] = values[: len(values) // 2]
        elif kind == "type":
            file[name] = np.zeros(values.shape, rng.choice(["f8", "i1", "c8", "?", "u8"]))
        elif kind == "scalar":
            file[name] = 7
        elif kind == "claim":
            shape = (10**10, *values.shape[1:])
            chunks = (1024, *(max(1, n) for n in values.shape[1:]))
            file.create_dataset(name, shape=shape, dtype=values.dtype, chunks=chunks)
        elif kind == "group":
            file.create_group(name)
        elif kind == "text":
            file.create_dataset(name, data=["x"] * max(len(values), 1), dtype=h5py.string_dtype())
    return f"{name} {kind}"
