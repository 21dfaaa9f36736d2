"""One displacement per keypoint that agrees with all alignments of its track.

minimise  sum over aligned matches of rho(|W (delta1 - A delta0 - d)|) + sum |delta|^2 / prior^2

with affinity A and displacement d of a match (see `PairAlignment`), W^T W the inverse of its
covariance (image noise plus ``model_sigma_px``), and rho the Cauchy loss: a sparse linear system
that is solved a few times, reweighted by the residuals of the last solution. Tracks are independent
of each other, so they are solved in groups of bounded size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy.sparse as sparse
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import spsolve

from reconstruct.geometry import Float64
from reconstruct.refinement.pairs import PairAlignment
from reconstruct.refinement.settings import RefineConfig
from reconstruct.refinement.tracks import split_tracks
from reconstruct.types import ImagePair

ROUNDS: Final = 8
GROUP: Final = 50_000
"""About how many alignments are solved at once: bounds the memory only."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Refined:
    """The outcome for every keypoint and match.

    Attributes:
        displacement: Image -> (N, 2) pixels at ``max_edge``, zero where not refined.
        refined: Image -> (N,) bool.
        kept: Pair -> (M,) bool, false for matches that would join two points of one image.
        residuals_px: (E,) of the alignments that were used.
    """

    displacement: dict[str, Float64]
    refined: dict[str, NDArray[np.bool_]]
    kept: dict[ImagePair, NDArray[np.bool_]]
    residuals_px: Float64


def refine_keypoints(
    keypoints: Mapping[str, NDArray[Any]],
    matches: Mapping[ImagePair, NDArray[Any]],
    alignments: Mapping[ImagePair, PairAlignment],
    config: RefineConfig,
) -> Refined:
    """Displacements of all keypoints of a match graph.

    A keypoint without an alignment, or whose alignments contradict each other, keeps its position;
    it keeps its matches too.

    Args:
        keypoints: Image -> (N, 2) COLMAP pixels at ``max_edge`` (photo pixels x ``Pyramid.scale``).
        matches: Pair -> (M, 2) keypoint indices.
        alignments: Pair -> alignments of its matches.
        config: Settings.
    """
    graph = _Graph.of(keypoints, matches, alignments)
    kept = _kept(graph, config)
    used = kept & graph.aligned
    delta, residuals = graph.solve(used, config)
    agrees = residuals < config.max_residual_px
    refined = np.zeros(len(delta), np.bool_)
    refined[graph.first[used][agrees]] = True
    refined[graph.second[used][agrees]] = True
    refined &= np.linalg.norm(delta, axis=1) <= config.max_move_px
    delta[~refined] = 0.0
    return Refined(
        displacement={name: delta[part] for name, part in graph.keypoints.items()},
        refined={name: refined[part] for name, part in graph.keypoints.items()},
        kept={pair: kept[part] for pair, part in graph.edges.items()},
        residuals_px=residuals,
    )


def _kept(graph: _Graph, config: RefineConfig) -> NDArray[np.bool_]:
    """Matches that do not join two points of one image. A first solution over all alignments tells
    which points differ: D2-Net often detects one corner twice, a few pixels apart."""
    delta, residuals = graph.solve(graph.aligned, config)
    good = graph.aligned.copy()
    good[graph.aligned] = residuals < config.max_residual_px
    trust = graph.correlation + 2.0 * good + 2.0 * graph.aligned
    aligned = graph.positions + delta
    return split_tracks(
        graph.image_of, aligned, graph.first, graph.second, trust, config.duplicate_px
    )


def solve_displacements(
    count: int,
    first: NDArray[Any],
    second: NDArray[Any],
    affinity: Float64,
    displacement: Float64,
    covariance: Float64,
    config: RefineConfig,
) -> tuple[Float64, Float64]:
    """Displacements that agree best with E alignments.

    Args:
        count: Number of keypoints.
        first: (E,) keypoints 0 to count - 1, of image 0 of each alignment.
        second: (E,) keypoints of image 1.
        affinity: (E, 2, 2), see `PairAlignment`.
        displacement: (E, 2), see `PairAlignment`.
        covariance: (E, 2, 2), see `PairAlignment`.
        config: Settings.

    Returns:
        (count, 2) displacements and the (E,) residuals, in pixels.
    """
    delta = np.zeros((count, 2))
    floor = config.model_sigma_px**2 * np.eye(2)
    whitening = np.linalg.inv(np.linalg.cholesky(covariance + floor))
    for group in _groups(count, first, second):
        used, column = np.unique(np.concatenate([second[group], first[group]]), return_inverse=True)
        white = whitening[group]
        blocks = np.concatenate([white, -white @ affinity[group]])
        system = _block_matrix(blocks, np.tile(np.arange(len(group)), 2), column, len(used))
        target = np.einsum("eij,ej->ei", white, displacement[group]).ravel()
        delta[used] = _solve_robust(system, target, config)
    moved = np.einsum("eij,ej->ei", affinity, delta[first])
    return delta, np.linalg.norm(delta[second] - moved - displacement, axis=1)


def _solve_robust(system: Any, target: Float64, config: RefineConfig) -> Float64:
    """(K, 2) minimiser of the Cauchy loss of ``system x - target`` with the prior."""
    prior = sparse.eye(system.shape[1]) / config.prior_sigma_px**2
    weights = np.ones(len(target) // 2)
    for _ in range(ROUNDS):
        weighted = sparse.diags(np.repeat(weights, 2)) @ system
        solution = spsolve((system.T @ weighted + prior).tocsc(), weighted.T @ target)
        error = np.linalg.norm((system @ solution - target).reshape(-1, 2), axis=1)
        weights = 1.0 / (1.0 + (error / config.robust_scale) ** 2)
    return np.asarray(solution, np.float64).reshape(-1, 2)


def _groups(count: int, first: NDArray[Any], second: NDArray[Any]) -> list[NDArray[np.int64]]:
    """Indices of alignments in groups of whole tracks, each of about ``GROUP`` alignments or one
    track."""
    if not len(first):
        return []
    graph = sparse.coo_matrix((np.ones(len(first)), (first, second)), shape=(count, count))
    _, track = connected_components(graph, directed=False)
    order = np.argsort(track[first], kind="stable")
    sizes = np.bincount(track[first])
    ends = np.cumsum(sizes)
    group = ((ends - sizes) // GROUP)[track[first][order]]
    return np.split(order, np.flatnonzero(np.diff(group)) + 1)


def _block_matrix(blocks: Float64, rows: NDArray[Any], columns: NDArray[Any], width: int) -> Any:
    """Sparse matrix of (B, 2, 2) blocks at block positions (rows, columns)."""
    inner = np.arange(2)
    row = np.broadcast_to((2 * rows[:, None] + inner)[:, :, None], blocks.shape)
    column = np.broadcast_to((2 * columns[:, None] + inner)[:, None, :], blocks.shape)
    shape = (2 * (int(rows.max()) + 1), 2 * width)
    return sparse.csr_matrix((blocks.ravel(), (row.ravel(), column.ravel())), shape=shape)


@dataclass(frozen=True, slots=True, eq=False)
class _Graph:
    """The match graph, with keypoints numbered through all images in sorted order.

    Attributes:
        keypoints: Image -> slice of its keypoints in the arrays over all keypoints.
        edges: Pair -> slice of its matches in the arrays over all matches.
        image_of: (N,) number of each keypoint's image.
        positions: (N, 2).
        first: (E,) keypoint of image 0 of every match.
        second: (E,) keypoint of image 1.
        alignments: Of each pair, in sorted order.
    """

    keypoints: dict[str, slice]
    edges: dict[ImagePair, slice]
    image_of: NDArray[Any]
    positions: Float64
    first: NDArray[Any]
    second: NDArray[Any]
    alignments: list[PairAlignment]

    @classmethod
    def of(
        cls,
        keypoints: Mapping[str, NDArray[Any]],
        matches: Mapping[ImagePair, NDArray[Any]],
        alignments: Mapping[ImagePair, PairAlignment],
    ) -> _Graph:
        """The graph of all images' keypoints, images and pairs in sorted order."""
        names, pairs = sorted(keypoints), sorted(matches)
        counts = [len(keypoints[name]) for name in names]
        ends = np.cumsum([0, *counts]).tolist()
        start = dict(zip(names, ends, strict=False))
        edges = np.cumsum([0, *(len(matches[pair]) for pair in pairs)]).tolist()
        first = [matches[a, b][:, 0].astype(np.int64) + start[a] for a, b in pairs]
        second = [matches[a, b][:, 1].astype(np.int64) + start[b] for a, b in pairs]
        nothing = np.zeros(0, np.int64)
        return cls(
            keypoints={name: slice(ends[i], ends[i + 1]) for i, name in enumerate(names)},
            edges={pair: slice(edges[i], edges[i + 1]) for i, pair in enumerate(pairs)},
            image_of=np.repeat(np.arange(len(names)), counts),
            positions=np.concatenate([np.zeros((0, 2)), *(keypoints[name] for name in names)]),
            first=np.concatenate([nothing, *first]),
            second=np.concatenate([nothing, *second]),
            alignments=[alignments[pair] for pair in pairs],
        )

    @property
    def aligned(self) -> NDArray[np.bool_]:
        return np.concatenate([np.zeros(0, np.bool_), *(a.aligned for a in self.alignments)])

    @property
    def correlation(self) -> Float64:
        return np.concatenate([np.zeros(0), *(a.correlation for a in self.alignments)])

    def solve(self, used: NDArray[np.bool_], config: RefineConfig) -> tuple[Float64, Float64]:
        """(N, 2) displacements and (E,) residuals in pixels from the alignments of a mask."""
        return solve_displacements(
            len(self.image_of),
            self.first[used],
            self.second[used],
            self._column("affinity", (0, 2, 2))[used],
            self._column("displacement", (0, 2))[used],
            self._column("covariance", (0, 2, 2))[used],
            config,
        )

    def _column(self, name: str, empty: tuple[int, ...]) -> Float64:
        parts = [getattr(a, name) for a in self.alignments]
        return np.concatenate([np.zeros(empty), *parts])
