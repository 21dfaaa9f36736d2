"""Photos of a COLMAP model that observe the same points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Observed = Mapping[str, Mapping[int, tuple[float, float]]]
"""Image name -> id of each observed 3D point -> its position in the image, COLMAP pixels."""


def shared_counts(observed: Observed, names: Sequence[str]) -> NDArray[np.int64]:
    """(N, N) number of points that two of ``names`` both observe; on the diagonal all of a
    photo's."""
    ids = [np.fromiter(observed[name], np.int64, len(observed[name])) for name in names]
    rows = np.repeat(np.arange(len(names)), [len(part) for part in ids])
    columns = np.concatenate([np.zeros(0, np.int64), *ids])
    _, columns = np.unique(columns, return_inverse=True)
    shape = (len(names), int(columns.max(initial=-1)) + 1)
    matrix = sparse.csr_array((np.ones(len(rows), np.int64), (rows, columns)), shape=shape)
    return np.asarray((matrix @ matrix.T).toarray(), np.int64)


def covisible_pairs(
    observed: Observed, names: Sequence[str], min_shared: int
) -> list[tuple[int, int]]:
    """Pairs of images that share points.

    Args:
        observed: Observations of every image.
        names: The images to pair.
        min_shared: Smallest number of shared points.

    Returns:
        Sorted pairs of indices into ``names``.
    """
    counts = np.triu(shared_counts(observed, names), 1)
    return [(int(a), int(b)) for a, b in np.argwhere(counts >= max(1, min_shared))]
