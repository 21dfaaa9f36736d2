"""The match graph: which photos see the same, and which of them hold the model together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components

from reconstruct.colmap import ModelArrays
from reconstruct.geometry import Float64
from reconstruct.report.content import GraphNode, MatchGraph
from reconstruct.report.figures import count
from reconstruct.report.pictures import png
from reconstruct.report.scene import ground_axes
from reconstruct.types import ImagePair

HEAT_SIDE = 480
"""Photos by photos that the heat map shows; more share a cell."""
EDGES = 1500
"""Edges drawn over the plan: those with most matches."""
PLAN_SIDE = 360
MARGIN = 0.06
"""Of the plan, around the cameras and points."""
HEAT = (46, 124, 196)
"""Colour of a cell; the more matches, the less clear: it stands out on white and on black."""
FAINTEST = 0.12


def cut_photos(names: Sequence[str], pairs: Mapping[ImagePair, int]) -> dict[str, list[int]]:
    """Articulation points: photo -> sizes of the parts into which the graph falls without it.

    names: of the photos that hang together; pairs of others are passed over.
    """
    index = {name: i for i, name in enumerate(names)}
    rows = [(index[a], index[b]) for a, b in pairs if a in index and b in index]
    if not rows or len(names) < 3:
        return {}
    ends = np.array(rows)
    found = {}
    whole = _components(ends, len(names))[0]
    for name, i in index.items():
        kept = ends[(ends != i).all(axis=1)]
        parts, labels = _components(kept, len(names))
        if parts - 1 > whole:  # the photo itself stands alone now
            sizes = np.bincount(np.delete(labels, i))
            found[name] = sorted(sizes[sizes > 0].tolist(), reverse=True)
    return found


def _components(ends: NDArray[np.int64], size: int) -> tuple[int, NDArray[np.int32]]:
    ends = ends.reshape(-1, 2)
    matrix = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), (size, size))
    parts, labels = connected_components(csr_matrix(matrix), directed=False)
    return int(parts), labels


def graph_sentences(
    names: Sequence[str], pairs: Mapping[ImagePair, int], cuts: Mapping[str, list[int]]
) -> tuple[str, ...]:
    """Which photos hold the model together, and which are connected best and least."""
    own = {pair: n for pair, n in pairs.items() if set(pair) <= set(names)}
    if len(names) < 3 or not own:
        return ()
    total = dict.fromkeys(names, 0)
    degree = dict.fromkeys(names, 0)
    for (a, b), matches in own.items():
        for name in (a, b):
            total[name] += matches
            degree[name] += 1
    sentences = []
    for name, sizes in sorted(cuts.items(), key=lambda item: -min(item[1][:2]))[:3]:
        parts = " and ".join(map(str, sizes[:3]))
        sentences.append(
            f"{name} holds the model together: without it the photos fall into parts of {parts}."
        )
    if not cuts:
        sentences.append(
            "The model hangs on no single photo: without any one, the others stay connected."
        )
    weakest = min(names, key=lambda name: (total[name], name))
    strongest = max(names, key=lambda name: (total[name], name))
    for name, word in ((strongest, "is the best connected"), (weakest, "is the least connected")):
        told = f"{count(total[name], 'verified match')} with {count(degree[name], 'photo')}"
        sentences.append(f"{name} {word}: {told}.")
    return tuple(sentences)


def match_graph(
    names: Sequence[str],
    pairs: Mapping[ImagePair, int],
    model: ModelArrays | None,
    photos: Mapping[str, int],
    up: Float64 | None = None,
) -> MatchGraph | None:
    """The graph of the verified ``pairs`` over ``names``; None if there is none.

    photos: name -> index in the table. up: where it is known, see `ground_axes`.
    """
    if not pairs:
        return None
    mapped = model.names if model is not None else ()
    cuts = cut_photos(mapped, pairs) if len(mapped) <= 2000 else {}
    nodes: list[GraphNode] = []
    plan = None
    if model is not None and len(mapped):
        centers, plan = _plan(model, ground_axes(model.poses, up))
        for name, at in zip(mapped, centers.tolist(), strict=True):
            x, y = round(at[0], 4), round(at[1], 4)
            nodes.append(
                GraphNode(name=name, at=(x, y), photo=photos.get(name, -1), cut=name in cuts)
            )
    index = {node.name: i for i, node in enumerate(nodes)}
    edges = [(index[a], index[b], n) for (a, b), n in pairs.items() if a in index and b in index]
    edges = sorted(edges, key=lambda edge: -edge[2])[:EDGES]
    return MatchGraph(
        heat=_heat(names, pairs),
        names=tuple(names),
        most=max(pairs.values()),
        plan=plan,
        nodes=tuple(nodes),
        edges=tuple(sorted(edges, key=lambda edge: edge[2])),
        sentences=graph_sentences(mapped, pairs, cuts),
    )


def _heat(names: Sequence[str], pairs: Mapping[ImagePair, int]) -> str:
    """PNG, clear where there is no match; the stronger the more, by the square root."""
    side = min(len(names), HEAT_SIDE)
    cell = {name: i * side // len(names) for i, name in enumerate(names)}
    matrix = np.zeros((side, side))
    for (a, b), matches in pairs.items():
        if a in cell and b in cell:
            i, j = cell[a], cell[b]
            matrix[i, j] = matrix[j, i] = max(matrix[i, j], matches)
    share = np.sqrt(matrix / max(matrix.max(), 1))
    picture = np.empty((side, side, 4), np.uint8)
    picture[..., :3] = HEAT
    picture[..., 3] = np.round(255 * np.where(matrix > 0, FAINTEST + (1 - FAINTEST) * share, 0))
    return png(picture)


def _plan(model: ModelArrays, axes: Float64) -> tuple[NDArray[np.float64], str | None]:
    """(I, 2) cameras in the unit square, y down, and a picture of the points from above in it."""
    axes = axes * [[1], [-1]]
    centers, points = model.centers @ axes.T, model.xyz @ axes.T
    low, high = centers.min(0), centers.max(0)
    if len(points):
        low = np.minimum(low, np.percentile(points, 2, axis=0))
        high = np.maximum(high, np.percentile(points, 98, axis=0))
    scale = (1 - 2 * MARGIN) / max(float((high - low).max()), 1e-9)

    def place(xy: NDArray[np.float64]) -> NDArray[np.float64]:
        moved = (xy - (low + high) / 2) * scale
        return np.column_stack([0.5 + moved[:, 0], 0.5 + moved[:, 1]])

    return place(centers), _splat(place(points), model.colors) if len(points) else None


def _splat(at: NDArray[np.float64], colors: NDArray[np.uint8]) -> str:
    """Points as pixels: their mean colour, and the more of them the less clear."""
    cell = (at * PLAN_SIDE).astype(int)
    inside = ((cell >= 0) & (cell < PLAN_SIDE)).all(axis=1)
    flat = cell[inside, 1] * PLAN_SIDE + cell[inside, 0]
    size = PLAN_SIDE * PLAN_SIDE
    hits = np.bincount(flat, minlength=size)
    picture = np.zeros((size, 4), np.uint8)
    for channel in range(3):
        total = np.bincount(flat, colors[inside, channel], size)
        picture[:, channel] = total / np.maximum(hits, 1)
    picture[:, 3] = np.where(hits, np.minimum(110 + 50 * hits, 255), 0)
    return png(picture.reshape(PLAN_SIDE, PLAN_SIDE, 4))
