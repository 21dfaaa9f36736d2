"""What matching costs from stored features to stored matches, beside hloc's procedure; a table.

    python tests/benchmarks/hloc_procedure.py OUT [--rounds 3] [--threads 2]

OUT is an output folder with features/ of D2-Net; all pairs of its photos are matched by mutual
nearest neighbours, in turns: by this package (`match_pairs`, shards written), and as
github.com/cvg/Hierarchical-Localization does (hloc/match_features.py, configuration ``NN-mutual``),
written here anew from what it does: five loader processes that read both photos of each pair from
one HDF5 file of float16 arrays, (D, N), and make an empty picture of the photo's size; the whole
table of similarities by einsum; the nearest by topk, both ways; and five threads that open one file
of matches for each pair. Starting the loaders counts, starting Python and loading torch does not.
Beside them stands the product of the descriptors alone, in memory: no exact search can do less.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import date
from itertools import combinations
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from reconstruct.matching import create
from reconstruct.matching.many import match_pairs, tiled
from reconstruct.matching.mutual_nn import MutualNNConfig
from reconstruct.matching.nearest import unit_vectors
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.matches import MatchStore
from reconstruct.storage.shard_writer import ShardWriter, shard_size
from reconstruct.types import ImagePair

LOADERS, WRITERS = 5, 5
Found = dict[ImagePair, set[tuple[int, int]]]
Way = Callable[[Path], Callable[[], Found]]
"""Matches all pairs into a folder, and returns what reads the matches."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="with features/")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    store = FeatureStore(args.output / "features")
    names = sorted(store.fingerprints())
    pairs = list(combinations(names, 2))
    with tempfile.TemporaryDirectory() as scratch:
        features = Path(scratch) / "features.h5"
        rows, dim = write_features(features, store, names)
        ways: dict[str, Way] = {
            "hloc's procedure": lambda folder: hloc(features, pairs, folder / "matches.h5"),
            "here": lambda folder: here(store, pairs, folder),
            "the product alone": product(store, pairs),
        }
        seconds, found = timed(ways, args.rounds, Path(scratch))
    print(f"{platform.machine()}, {args.threads} threads, {date.today()}")
    print(f"{len(pairs)} pairs of {rows:.0f} x {dim}; least and most of {args.rounds} rounds\n")
    print("| way | ms a pair | matches |\n|---|---|---|")
    for (way, matches), times in zip(found.items(), seconds.T, strict=True):
        low, high = (f"{1e3 * t / len(pairs):.1f}" for t in (times.min(), times.max()))
        print(f"| {way} | {low} to {high} | {sum(map(len, matches.values()))} |")
    first, second, _ = found.values()
    same = sum(len(first[pair] & second[pair]) for pair in pairs)
    ratio = seconds[:, 0].min() / seconds[:, 1].min()
    print(f"\n{ratio:.2f} times as fast; {same} matches are the same")


def timed(ways: dict[str, Way], rounds: int, scratch: Path) -> tuple[np.ndarray, dict[str, Found]]:
    """(rounds, ways) seconds, in turns, after a round that is not counted; and what was found."""
    seconds = np.zeros((rounds + 1, len(ways)))
    found: dict[str, Found] = {}
    for i in range(rounds + 1):
        for j, (name, way) in enumerate(ways.items()):
            folder = scratch / f"{i}-{j}"
            folder.mkdir()
            start = time.perf_counter()
            read = way(folder)
            seconds[i, j] = time.perf_counter() - start
            found[name] = read()
    return seconds[1:], found


def here(store: FeatureStore, pairs: Sequence[ImagePair], folder: Path) -> Callable[[], Found]:
    """Match as stage `match` does; returns what reads the matches."""
    matcher, matches = create(MutualNNConfig(), "cpu"), MatchStore(folder)
    store = FeatureStore(store.folder)  # with no file open
    writer = ShardWriter(matches, shard_size(len(pairs), 8, 256))
    for pair, found in match_pairs(matcher, tiled(pairs), lambda n: store.load(n, matcher.reads)):
        writer.add(MatchStore.record(pair, "", found))
    writer.flush()
    return lambda: {pair: set(map(tuple, matches.load(pair).tolist())) for pair in pairs}


def product(store: FeatureStore, pairs: Sequence[ImagePair]) -> Way:
    """Similarities of all descriptors, with all threads of torch."""
    names = {name for pair in pairs for name in pair}
    vectors = {n: unit_vectors(store.load(n).descriptors, torch.device("cpu")) for n in names}

    def multiply(_: Path) -> Callable[[], Found]:
        for first, second in pairs:
            vectors[first] @ vectors[second].T
        return dict

    return multiply


def write_features(path: Path, store: FeatureStore, names: Sequence[str]) -> tuple[float, int]:
    """Features as hloc stores them; returns the mean number of keypoints and D."""
    counts, dim = [], 0
    with h5py.File(path, "w", libver="latest") as file:
        for name in names:
            local = store.load(name)
            group = file.create_group(name)
            group["keypoints"] = local.keypoints.astype(np.float16)
            group["descriptors"] = local.descriptors.T.astype(np.float16)
            group["scores"] = local.scores.astype(np.float16)
            group["image_size"] = np.asarray(local.image_size)
            counts.append(len(local.keypoints))
            dim = local.descriptors.shape[1]
    return float(np.mean(counts)), dim


class StoredPairs(Dataset[dict[str, Tensor]]):
    """Both photos of each pair, all that is stored of them as float32."""

    def __init__(self, path: Path, pairs: Sequence[ImagePair]) -> None:
        self.path, self.pairs = path, pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        loaded = {}
        for side, name in enumerate(self.pairs[number]):
            with h5py.File(self.path, "r") as file:
                for field, values in file[name].items():
                    loaded[f"{field}{side}"] = torch.from_numpy(values[()]).float()
                width, height = file[name]["image_size"][()]
            loaded[f"image{side}"] = torch.empty((1, height, width))
        return loaded


def hloc(features: Path, pairs: Sequence[ImagePair], path: Path) -> Callable[[], Found]:
    """Match as hloc does; returns what reads the matches."""
    queue: Queue[tuple[ImagePair, Tensor, Tensor] | None] = Queue(WRITERS)
    writers = [Thread(target=write_from, args=(queue, path)) for _ in range(WRITERS)]
    for writer in writers:
        writer.start()
    loader: DataLoader[Any] = DataLoader(
        StoredPairs(features, pairs), batch_size=1, num_workers=LOADERS
    )
    for pair, data in zip(pairs, loader, strict=True):
        queue.put((pair, *mutual(data["descriptors0"], data["descriptors1"])))
    for _ in writers:
        queue.put(None)
    for writer in writers:
        writer.join()
    return lambda: read_matches(path, pairs)


def mutual(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """(1, D, N) and (1, D, M) descriptors -> (1, N) the match of each, -1 for none, and scores."""
    similarity = torch.einsum("bdn,bdm->bnm", first, second)
    score, forward = (t[..., 0] for t in similarity.topk(1, dim=-1))
    backward = similarity.transpose(1, 2).topk(1, dim=-1)[1][..., 0]
    returns = backward.gather(-1, forward) == torch.arange(forward.shape[-1])
    return torch.where(returns, forward, -1), (score + 1) / 2


def write_from(queue: Queue[tuple[ImagePair, Tensor, Tensor] | None], path: Path) -> None:
    """Write what comes until there is no more, a group a pair."""
    while (item := queue.get()) is not None:
        (first, second), matches, scores = item
        with h5py.File(path, "a", libver="latest") as file:
            group = file.create_group(f"{first}/{second}")
            group["matches0"] = matches[0].short().numpy()
            group["matching_scores0"] = scores[0].half().numpy()


def read_matches(path: Path, pairs: Sequence[ImagePair]) -> Found:
    with h5py.File(path, "r") as file:
        stored = {pair: file["/".join(pair)]["matches0"][()] for pair in pairs}
    return {
        pair: {(int(i), int(row[i])) for i in np.flatnonzero(row >= 0)}
        for pair, row in stored.items()
    }


if __name__ == "__main__":
    main()
