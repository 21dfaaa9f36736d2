"""Whether global descriptors find the right photos among those of other scenes; prints a table.

    python tests/benchmarks/recall.py park-gate=IMAGES:MODEL kitchen=IMAGES:MODEL daynight=IMAGES

Right are photos that share at least `COMMON` points with the one that is asked for in the scene's
finished MODEL (a COLMAP model or an output folder); without a model, photos by day in the folder of
one by night, which alone are asked for (files named day-*, night-*). All other photos of all
scenes are there to be found. Recall at k is the share of photos of which a right one is among the
first k; `found` the share of the first 20 that are right, of as many as there are.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reconstruct import colmap
from reconstruct.features.d2net import D2Net, D2NetConfig
from reconstruct.images import read_image
from reconstruct.retrieval.aggregation import Aggregation, kmeans, learn_whitening, normalized
from reconstruct.retrieval.describers import GemConfig, VladConfig, pool
from reconstruct.stages.global_ import VOCABULARY_ROWS
from reconstruct.types import FloatArray

COMMON = 30
FIRST = (1, 5, 20)
EXPANDED = 3
"""Query expansion: the mean of a descriptor and its so many nearest, weighted by similarity."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", nargs="+", metavar="NAME=IMAGES[:MODEL]")
    parser.add_argument("--max-edge", type=int, default=480)
    parser.add_argument("--weights", default="vgg16")
    parser.add_argument("--rows", type=Path, help="file that keeps what was computed of photos")
    args = parser.parse_args()
    scenes = [Scene(text) for text in args.scenes]
    gems, grids = _rows(scenes, args)
    right = _right([scene.right() for scene in scenes])
    labels = np.repeat([scene.name for scene in scenes], [len(scene.paths) for scene in scenes])
    print(f"{len(labels)} photos, {args.weights}, {args.max_edge} px\n")
    print("| descriptor | " + " | ".join(scene.name for scene in scenes) + " |")
    print("|---" * (1 + len(scenes)) + "|")
    for title, vectors in _descriptors(gems, grids):
        similar = vectors @ vectors.T
        np.fill_diagonal(similar, -1.0)
        cells = [_cell(similar[labels == s.name], right[labels == s.name]) for s in scenes]
        print(f"| {title} | " + " | ".join(cells) + " |", flush=True)


class Scene:
    """Photos, and which of them show the same."""

    def __init__(self, text: str) -> None:
        self.name, _, rest = text.partition("=")
        images, _, model = rest.partition(":")
        self.model = Path(model) if model else None
        self.root = Path(images)
        self.paths = sorted(path for path in self.root.rglob("*") if path.suffix.lower() == ".jpg")

    def right(self) -> NDArray[np.int8]:
        """(N, N) 1 where a photo (column) is right for another (row), -1 where it is left out, as
        other photos by night of the same place are."""
        if self.model is None:
            night = np.array([path.name.startswith("night") for path in self.paths])
            place = np.array([str(path.parent) for path in self.paths])
            same = (place[:, None] == place) & night[:, None]
            return np.where(same, np.where(night, -1, 1), 0).astype(np.int8)
        folder = self.model / "sparse" if (self.model / "sparse").is_dir() else self.model
        tracks = colmap.Tracks(colmap.read_model(folder))
        seen = {name: set(tracks.points(name).tolist()) - {-1} for name in tracks.names}
        own = [seen.get(path.relative_to(self.root).as_posix(), set()) for path in self.paths]
        right = [[a is not b and len(a & b) >= COMMON for b in own] for a in own]
        return np.array(right, np.int8)


def _right(blocks: list[NDArray[np.int8]]) -> NDArray[np.int8]:
    """The (N, N) blocks along the diagonal; photos of other scenes are wrong."""
    total = sum(map(len, blocks))
    table, start = np.zeros((total, total), np.int8), 0
    for block in blocks:
        table[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    return table


def _rows(scenes: list[Scene], args: argparse.Namespace) -> tuple[FloatArray, FloatArray]:
    """(N, C) GeM and (N, R, C) grid of every photo."""
    if args.rows is not None and args.rows.is_file():
        with np.load(args.rows) as kept:
            return kept["gems"], kept["grids"]
    config = D2NetConfig(weights=args.weights, max_edge=args.max_edge, max_sum_edges=None)
    trunk = D2Net(config)
    gems, grids = [], []
    for path in (path for scene in scenes for path in scene.paths):
        maps = trunk.maps([trunk.prepare(read_image(path))])
        assert maps is not None
        gems.append(pool(maps, GemConfig())[0][0])
        grids.append(pool(maps, VladConfig())[0])
    rows = np.stack(gems), np.stack(grids)
    if args.rows is not None:
        np.savez(args.rows, gems=rows[0], grids=rows[1])
    return rows


def _descriptors(gems: FloatArray, grids: FloatArray) -> Iterator[tuple[str, FloatArray]]:
    """Title and (N, D) unit vectors of each kind; whitening and vocabulary learned on all photos,
    as a run does."""
    rows = grids.reshape(-1, grids.shape[-1])
    sample = rows[:: -(-len(rows) // VOCABULARY_ROWS)].astype(np.float32)
    words = kmeans(sample, VladConfig().clusters, seed=0)
    vlads = np.stack([Aggregation(vocabulary=words).vector(grid) for grid in grids])
    for title, vectors in (("GeM", gems), ("VLAD", vlads)):
        yield title, normalized(vectors)
        for strength in (0.0, GemConfig().whitening, 0.5, 1.0):
            whitened = learn_whitening(vectors, 512, strength=strength)(vectors)
            yield f"{title}, whitening {strength}", whitened
            if strength == GemConfig().whitening:
                yield f"{title}, whitening {strength}, query expansion", _expanded(whitened)


def _expanded(vectors: FloatArray) -> FloatArray:
    similar = vectors @ vectors.T
    nearest = np.argsort(-similar, axis=1)[:, : 1 + EXPANDED]  # itself is the first
    weights = np.take_along_axis(similar, nearest, 1).clip(min=0)
    return normalized((weights[..., None] * vectors[nearest]).sum(1))


def _cell(similar: FloatArray, right: NDArray[np.int8]) -> str:
    """Recall of the photos (rows) that have a right one, and the share of right ones found."""
    order = np.argsort(np.where(right < 0, 2.0, -similar), axis=1)
    hits = np.take_along_axis(right, order, 1)[(right > 0).any(1)] > 0
    recall = [100 * hits[:, :k].any(1).mean() for k in FIRST]
    there = np.minimum(hits.sum(1), FIRST[-1])
    found = 100 * (hits[:, : FIRST[-1]].sum(1) / there).mean()
    return " / ".join(f"{value:.1f}" for value in recall) + f", found {found:.1f}"


if __name__ == "__main__":
    main()
