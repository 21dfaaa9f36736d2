"""``global/index.h5``: the global descriptors of all images of a run, and how they were made.

names         (N,) str, sorted
descriptors   (N, D) float32 of unit length
vocabulary    (K, C) float32, absent without one
mean          (E,), projection (E, D) float32, absent without whitening
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from reconstruct.errors import ArtifactError
from reconstruct.retrieval.aggregation import Aggregation, Whitening
from reconstruct.storage.hdf5 import UNREADABLE, new_hdf5, texts
from reconstruct.types import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GlobalIndex:
    """The global descriptors of a run.

    Attributes:
        names: Sorted names of the images.
        descriptors: (N, D) float32 in the order of ``names``.
        aggregation: Computes the descriptors of further images.
    """

    names: tuple[str, ...]
    descriptors: FloatArray
    aggregation: Aggregation

    def select(self, names: list[str]) -> FloatArray:
        """(len(names), D) descriptors of these images. Raises ArtifactError for an unknown
        image."""
        index_of = {name: i for i, name in enumerate(self.names)}
        absent = [name for name in names if name not in index_of]
        if absent:
            raise ArtifactError(f"no global descriptor of {absent[0]}; run stage global again")
        return self.descriptors[[index_of[name] for name in names]]


def write_index(path: Path, index: GlobalIndex) -> None:
    """Write the file, atomically."""
    with new_hdf5(path) as file:
        file["names"] = texts(index.names)
        file["descriptors"] = index.descriptors
        if index.aggregation.vocabulary is not None:
            file["vocabulary"] = index.aggregation.vocabulary
        if index.aggregation.whitening is not None:
            file["mean"] = index.aggregation.whitening.mean
            file["projection"] = index.aggregation.whitening.projection


def read_index(path: Path) -> GlobalIndex:
    """Read the file. Raises ArtifactError if it is missing or unreadable."""
    try:
        with h5py.File(path, "r") as file:
            whitening = None
            if "projection" in file:
                whitening = Whitening(mean=file["mean"][:], projection=file["projection"][:])
            vocabulary = file["vocabulary"][:] if "vocabulary" in file else None
            return GlobalIndex(
                names=tuple(np.asarray(file["names"].asstr()[:], str).tolist()),
                descriptors=file["descriptors"][:],
                aggregation=Aggregation(vocabulary=vocabulary, whitening=whitening),
            )
    except UNREADABLE as error:
        raise ArtifactError(f"{path}: cannot be read ({error}); run stage global again") from error
