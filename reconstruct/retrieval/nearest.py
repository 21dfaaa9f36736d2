"""Nearest images by global descriptors, block by block: memory does not grow with N x N."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reconstruct.lazy import lazily
from reconstruct.matching.nearest import BlockSize, similarity_blocks
from reconstruct.types import FloatArray, ImagePair

if TYPE_CHECKING:
    import torch
else:
    torch = lazily("torch")

BLOCK: BlockSize = (1024, 16384)
"""Rows and columns of a block of similarities: 64 MiB of float32."""


def nearest(
    queries: FloatArray,
    database: FloatArray,
    count: int,
    *,
    query_labels: NDArray[np.int64] | None = None,
    database_labels: NDArray[np.int64] | None = None,
    itself: bool = False,
    block: BlockSize = BLOCK,
) -> tuple[NDArray[np.int64], FloatArray]:
    """The database entries with the largest dot product with each query.

    Args:
        queries: (Q, D).
        database: (N, D).
        count: Number of neighbours per query.
        query_labels: (Q,) labels; neighbours have the same label as the query.
        database_labels: (N,) labels.
        itself: Queries and database are the same set, and an entry is not its own neighbour.
        block: Size of a block of similarities (queries, database entries).

    Returns:
        (Q, k) indices and (Q, k) similarities, k = min(count, N): the most similar first, the
            smaller index first among equals; -1 and -inf where there are fewer.
    """
    size = min(count, len(database))
    index = np.full((len(queries), size), -1, np.int64)
    score = np.full((len(queries), size), -np.inf, np.float32)
    first, second = (torch.from_numpy(np.ascontiguousarray(part)) for part in (queries, database))
    for rows, columns, product in similarity_blocks(first, second, block):
        table = product.numpy()
        if query_labels is not None and database_labels is not None:
            table[query_labels[rows, None] != database_labels[None, columns]] = -np.inf
        if itself:
            same = np.arange(max(rows.start, columns.start), min(rows.stop, columns.stop))
            table[same - rows.start, same - columns.start] = -np.inf
        index[rows], score[rows] = _merge(index[rows], score[rows], table, columns.start, size)
    return index, score


def _merge(
    index: NDArray[np.int64], score: FloatArray, table: FloatArray, offset: int, size: int
) -> tuple[NDArray[np.int64], FloatArray]:
    """The best of the entries so far and of a further block, whose columns start at ``offset``."""
    part = _largest(table, size)
    scores = np.concatenate([score, np.take_along_axis(table, part, axis=1)], axis=1)
    indices = np.concatenate([index, part + offset], axis=1)
    # Earlier blocks have the smaller indices, and come first: a stable sort settles ties.
    order = np.argsort(-scores, axis=1, kind="stable")[:, :size]
    scores = np.take_along_axis(scores, order, axis=1)
    indices = np.take_along_axis(indices, order, axis=1)
    return np.where(np.isneginf(scores), -1, indices), scores


def _largest(table: FloatArray, size: int) -> NDArray[np.int64]:
    """(R, min(size, C)) columns of the largest values of each row, by value, then by column."""
    size = min(size, table.shape[1])
    limit = -np.partition(-table, size - 1, axis=1)[:, size - 1]
    result = np.empty((len(table), size), np.int64)
    for row, values in enumerate(table):
        candidates = np.flatnonzero(values >= limit[row])
        result[row] = candidates[np.argsort(-values[candidates], kind="stable")[:size]]
    return result


def neighbor_pairs(
    queries: Sequence[str], database: Sequence[str], index: NDArray[np.int64]
) -> list[ImagePair]:
    """Pairs of the queries with their neighbours.

    Args:
        queries: Names of the queries.
        database: Names of the database entries.
        index: (Q, k) as returned by `nearest`.

    Returns:
        Sorted pairs, the smaller name first, each once.
    """
    names = sorted({*queries, *database})
    number = {name: i for i, name in enumerate(names)}
    asked, others = (
        np.array([number[name] for name in side], np.int64) for side in (queries, database)
    )
    rows, columns = np.nonzero(index >= 0)
    first, second = asked[rows], others[index[rows, columns]]
    # As numbers: sets of two million pairs of names would take half a gigabyte.
    codes = np.unique(np.minimum(first, second) * len(names) + np.maximum(first, second))
    smaller, larger = np.divmod(codes, max(len(names), 1))
    return [(names[i], names[j]) for i, j in zip(smaller.tolist(), larger.tolist(), strict=True)]


def retrieval_pairs(
    names: Sequence[str],
    descriptors: FloatArray,
    neighbors: int = 20,
    *,
    within_folders: bool = False,
) -> list[ImagePair]:
    """Every image with those most similar to it by global descriptor.

    Args:
        names: N image names.
        descriptors: (N, D) of unit length.
        neighbors: how many for each image.
        within_folders: only images of the same folder.

    Returns:
        Sorted pairs of names, the smaller name first, each once.
    """
    labels = None
    if within_folders:
        folders = [str(PurePosixPath(name).parent) for name in names]
        labels = np.unique(folders, return_inverse=True)[1].astype(np.int64)
    found, _ = nearest(
        descriptors,
        descriptors,
        neighbors,
        query_labels=labels,
        database_labels=labels,
        itself=True,
    )
    return neighbor_pairs(names, names, found)
