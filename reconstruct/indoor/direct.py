"""The nearest of all features of a map, for each feature of a query."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.errors import UsageError
from reconstruct.lazy import lazily
from reconstruct.matching.nearest import Best, largest, similarity_blocks
from reconstruct.types import FloatArray

if TYPE_CHECKING:
    import torch
else:
    torch = lazily("torch")


def nearest_of_all(
    query: torch.Tensor, parts: Iterable[tuple[torch.Tensor, NDArray[np.int64]]]
) -> tuple[NDArray[np.int64], FloatArray]:
    """Exact search, one image of the map after the other.

    Args:
        query: (N, D) unit descriptors.
        parts: Of each image (M, D) descriptors on the same device and (M,) ids of their points.

    Returns:
        (N,) id of the nearest, -1 if there is none, and (N,) cosine. The first of equal ones wins.
    """
    best = Best.none(len(query), query.device)
    for descriptors, own in parts:
        ids = torch.from_numpy(own).to(query.device)
        for rows, columns, block in similarity_blocks(query, descriptors):
            cosine, place = largest(block, 1)
            best.update(rows, cosine, ids[columns][place])
    return best.index.cpu().numpy(), best.score.cpu().numpy()


class ApproximateIndex:
    """Search in a graph of neighbours (HNSW) by the library faiss: for maps of millions of
    features. The results are nearly those of `nearest_of_all`.

    Raises UsageError if the library is not installed.
    """

    def __init__(self) -> None:
        try:
            self._faiss: Any = importlib.import_module("faiss")
        except ImportError as error:
            raise UsageError(
                "search: faiss needs the library faiss: pip install 'reconstruct[faiss]'; or use "
                "`search: exact`"
            ) from error
        self._index: Any = None
        self._ids: list[NDArray[np.int64]] = []

    def add(self, descriptors: FloatArray, ids: NDArray[np.int64]) -> None:
        """Add (M, D) unit descriptors with the (M,) ids of their points."""
        if self._index is None:
            kind = self._faiss.METRIC_INNER_PRODUCT
            self._index = self._faiss.IndexHNSWFlat(descriptors.shape[1], 32, kind)
            self._index.hnsw.efConstruction = 80
            self._index.hnsw.efSearch = 128
        if len(ids):
            self._index.add(np.ascontiguousarray(descriptors, np.float32))
            self._ids.append(ids)

    def search(self, query: FloatArray) -> tuple[NDArray[np.int64], FloatArray]:
        """The nearest of each (N, D) descriptor; returns the same as `nearest_of_all`."""
        if not self._ids or not len(query):
            return np.full(len(query), -1, np.int64), np.full(len(query), -np.inf, np.float32)
        cosine, nearest = self._index.search(np.ascontiguousarray(query, np.float32), 1)
        ids = np.concatenate(self._ids)[nearest[:, 0].clip(0)]
        return np.where(nearest[:, 0] < 0, -1, ids), np.asarray(cosine[:, 0], np.float32)
