"""From rows of features to one vector an image, and what is learned for it, on the CPU.

    rows --(vlad with a vocabulary)--> vectors --(whitening)--> global descriptors of unit length

VLAD: Jegou et al., CVPR 2010, with intra-normalisation (Arandjelovic and Zisserman, CVPR 2013).
Whitening: Jegou and Chum, ECCV 2012; here every direction is divided by a power of its variance,
as full whitening of a small collection only blows up noise.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2, vq

from reconstruct.types import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Whitening:
    """``mean`` (E,) and ``projection`` (E, D): x -> unit((x - mean) projection)."""

    mean: FloatArray
    projection: FloatArray

    def __call__(self, vectors: FloatArray) -> FloatArray:
        """(N, E) -> (N, D) of unit length (zero where nothing is left)."""
        return normalized((vectors - self.mean) @ self.projection)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Aggregation:
    """From the rows of an image to its descriptor. Without a vocabulary its rows are one vector;
    without whitening that is only scaled."""

    vocabulary: FloatArray | None = None
    whitening: Whitening | None = None

    def __call__(self, rows: NDArray[Any]) -> FloatArray:
        """(R, C) -> (D,) of unit length."""
        vector = self.vector(rows)
        if self.whitening is None:
            return normalized(vector)
        return np.asarray(self.whitening(vector[None])[0])

    def vector(self, rows: NDArray[Any]) -> FloatArray:
        """(R, C) -> (E,), what whitening starts from."""
        rows = rows.astype(np.float32)
        return rows[0] if self.vocabulary is None else vlad(rows, self.vocabulary)


def normalized(vectors: NDArray[Any]) -> FloatArray:
    """Rows divided by their length; zero rows stay."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)


def kmeans(rows: FloatArray, clusters: int, *, seed: int, iterations: int = 25) -> FloatArray:
    """(K, D) centres of (N, D) rows by Lloyd's algorithm from k-means++ seeds, K <= ``clusters``.

    A centre that loses all rows stays where it was. Raises ValueError if there is no row.
    """
    if not len(rows):
        raise ValueError("k-means needs at least one row")
    seeds = _spread_seeds(rows, min(clusters, len(rows)), np.random.default_rng(seed))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty")
        centers, _ = kmeans2(rows, seeds, iter=iterations, minit="matrix")
    return np.asarray(centers, np.float32)


def _spread_seeds(rows: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
    """k-means++ (Arthur and Vassilvitskii 2007): each seed with probability ~ squared distance."""
    chosen = [int(rng.integers(len(rows)))]
    distance = np.square(rows - rows[chosen[0]]).sum(axis=1, dtype=np.float64)
    while len(chosen) < count:
        total = distance.sum()
        weights = distance / total if total > 0 else None
        chosen.append(int(rng.choice(len(rows), p=weights)))
        latest = np.square(rows - rows[chosen[-1]]).sum(axis=1, dtype=np.float64)
        distance = np.minimum(distance, latest)
    return rows[chosen].astype(np.float32)


def vlad(rows: FloatArray, centers: FloatArray) -> FloatArray:
    """(K * D,) unit vector: the residuals of (N, D) rows to their centres, summed per centre.

    Each centre's sum is scaled to unit length first. No row gives zeros.
    """
    nearest, _ = vq(rows, centers)
    counts = np.bincount(nearest, minlength=len(centers))
    residuals = _sums(rows, nearest, len(centers)) - counts[:, None] * centers
    return normalized(normalized(residuals).reshape(-1))


def _sums(rows: FloatArray, group: NDArray[np.int64], groups: int) -> NDArray[np.float64]:
    """(groups, D) sums of the rows of each group."""
    members = (np.ones(len(rows)), (group, np.arange(len(rows))))
    table = scipy.sparse.csr_array(members, shape=(groups, len(rows)))
    return np.asarray(table @ rows.astype(np.float64))


def learn_whitening(vectors: FloatArray, dim: int, *, strength: float) -> Whitening:
    """Whitening from (N, E) sample vectors, N >= 2, to at most ``dim`` directions.

    strength: 0 keeps the directions' variances (plain PCA), 1 makes them equal. No more than
    `usable_directions` are kept. The sign of each is fixed by its largest entry.
    """
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    _, singular, directions = np.linalg.svd(vectors - mean, full_matrices=False)
    variance = np.square(singular.astype(np.float64)) / len(vectors)
    real = int(np.sum(variance > 1e-10 * max(variance[0], 1e-20)))
    count = max(1, min(dim, usable_directions(len(vectors)), real))
    kept = directions[:count]
    signs = np.sign(kept[np.arange(count), np.abs(kept).argmax(axis=1)])
    scale = np.maximum(variance[:count], 1e-20) ** (-strength / 2.0)
    return Whitening(mean=mean, projection=(kept * signs[:, None]).T * scale.astype(np.float32))


def usable_directions(images: int) -> int:
    """How many principal directions a collection can tell from its own noise: measured on 115
    photos of six scenes, equalising more than an eighth of their number mixes the scenes up."""
    return max(16, images // 8)
