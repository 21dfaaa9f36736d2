"""Which photos see the same points of a model: pairs to match, and groups that belong together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
from numpy.typing import NDArray

from reconstruct.types import ImagePair

BLOCK = 1024
"""Images a block: bounds the memory of counts."""

PointIds = Mapping[str, NDArray[np.int64]]
"""Image name -> ids of the points that its keypoints see, -1 where a keypoint sees none."""


def covisibility_pairs(seen: PointIds, neighbors: int) -> list[ImagePair]:
    """For every image the ``neighbors`` that share most points with it; of equal ones by name.

    Images that share no point are no pair.
    """
    names = sorted(seen)
    pairs: set[ImagePair] = set()
    for image, others, shared in _shared_counts([seen[name] for name in names]):
        for other in others[np.lexsort((others, -shared))][:neighbors]:
            low, high = sorted((image, int(other)))
            pairs.add((names[low], names[high]))
    return sorted(pairs)


def sharing_pairs(point_ids: Sequence[NDArray[np.int64]], min_shared: int) -> list[tuple[int, int]]:
    """All pairs of images that share at least ``min_shared`` points (and at least one), sorted.

    point_ids: of each image, as the values of `PointIds`. Returns positions in it, the smaller
    first.
    """
    least = max(1, min_shared)
    return [
        (image, int(other))
        for image, others, shared in _shared_counts(point_ids)
        for other in np.sort(others[(shared >= least) & (others > image)])
    ]


def sees_points(seen: PointIds) -> bool:
    """Whether any image of a model sees a 3D point: false for a model of poses alone, whose images
    can be paired by their poses only."""
    return any((ids >= 0).any() for ids in seen.values())


def covisibility_clusters(names: Sequence[str], seen: PointIds) -> list[list[str]]:
    """``names`` in groups that are linked by shared points, directly or through others.

    The largest group first, of equal ones the one with the first name; names keep their order.
    """
    if not names:
        return []
    table = _incidence([seen[name] for name in names])
    count, label = scipy.sparse.csgraph.connected_components(table @ table.T, directed=False)
    groups = [[n for n, own in zip(names, label, strict=True) if own == k] for k in range(count)]
    return sorted(groups, key=lambda group: -len(group))


def _shared_counts(
    point_ids: Sequence[NDArray[np.int64]],
) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """For each image: its index, the indices of the images that share points with it, and how many
    points each shares."""
    table = _incidence(point_ids)
    for start in range(0, len(point_ids), BLOCK):
        counts = (table[start : start + BLOCK] @ table.T).tocsr()
        for row in range(counts.shape[0]):
            span = slice(counts.indptr[row], counts.indptr[row + 1])
            others, shared = counts.indices[span], counts.data[span]
            apart = others != start + row
            yield start + row, others[apart], shared[apart]


def _incidence(point_ids: Sequence[NDArray[np.int64]]) -> scipy.sparse.csr_array:
    """(images, points) int32, 1 where an image sees a point."""
    rows = [np.unique(ids[ids >= 0]) for ids in point_ids]
    image = np.repeat(np.arange(len(rows)), [len(ids) for ids in rows])
    _, column = np.unique(np.concatenate([*rows, np.zeros(0, np.int64)]), return_inverse=True)
    shape = (len(rows), int(column.max(initial=-1)) + 1)
    return scipy.sparse.csr_array((np.ones(len(column), np.int32), (image, column)), shape=shape)
