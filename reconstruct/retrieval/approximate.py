"""Nearest images by global descriptors, nearly: for collections of more than some ten thousand.

The library faiss sorts the database into cells around centres (k-means) and compares a query with
the members of the cells whose centres are nearest to it (an inverted file, IVF: Sivic and
Zisserman, ICCV 2003). The similarities of what it finds are exact.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.errors import UsageError
from reconstruct.types import FloatArray

CELLS_BY_ROOT = 4
"""Cells by the square root of the size of the database."""
PROBES = 64
"""Cells that a query is compared with."""
TRAINED_BY = 64
"""Database entries a cell that its centre is learned from."""


def nearly_nearest(
    queries: FloatArray, database: FloatArray, count: int, *, itself: bool = False
) -> tuple[NDArray[np.int64], FloatArray]:
    """As `reconstruct.retrieval.nearest.nearest`, but some of the neighbours may be missed.

    Args:
        queries: (Q, D) unit vectors.
        database: (N, D) unit vectors.
        count: Number of neighbours per query.
        itself: Queries and database are the same set, and an entry is not its own neighbour.

    Returns:
        (Q, k) indices and (Q, k) similarities, k = min(count, N): the most similar first; -1 and
            -inf where there are fewer.

    Raises:
        UsageError: The library is not installed.
    """
    size = min(count, len(database))
    if not size or not len(queries):
        return np.zeros((len(queries), size), np.int64), np.zeros((len(queries), size), np.float32)
    index = _index(database)
    score, found = index.search(np.ascontiguousarray(queries, np.float32), size + itself)
    missed = found < 0
    if itself:
        missed |= found == np.arange(len(queries))[:, None]
    score, found = np.where(missed, -np.inf, score), np.where(missed, -1, found)
    order = np.argsort(-score, axis=1, kind="stable")[:, :size]
    return (
        np.take_along_axis(found, order, axis=1).astype(np.int64),
        np.take_along_axis(score, order, axis=1).astype(np.float32),
    )


def _index(database: FloatArray) -> Any:
    try:
        faiss = importlib.import_module("faiss")
    except ImportError as error:
        raise UsageError(
            "pair.search: faiss needs the library faiss: pip install 'reconstruct[faiss]'; or use "
            "`search: exact`"
        ) from error
    vectors = np.ascontiguousarray(database, np.float32)
    dim = vectors.shape[1]
    cells = min(len(vectors), round(CELLS_BY_ROOT * math.sqrt(len(vectors))))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1  # fewer than 39 are nothing to warn of
    index.cp.max_points_per_centroid = TRAINED_BY
    index.nprobe = PROBES
    index.train(vectors)
    index.add(vectors)
    return index
