"""What matching costs, beside the bare product of the descriptors; prints a table.

    python tests/benchmarks/matching.py [--busy N] [--clock cpu] [--sets 1800x64 OUT ...]

Milliseconds a pair on a CPU, taken in turns in one process, the least of several rounds: of the
product and its argmax alone (descriptors in memory, all threads of torch), of one call of the
matcher after the other, and of `match_pairs` from stored features, reading included. --sets: rows x
numbers of made-up descriptors, each photo with its next 6; or output folders with their matches/.
--busy: beside so many processes that do nothing but use a core. --clock cpu: seconds of processor
time, of all threads, which other work on the machine disturbs less.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from reconstruct.matching import Matcher, create
from reconstruct.matching.config import MatchConfig
from reconstruct.matching.consensus import ConsensusConfig
from reconstruct.matching.many import match_pairs, tiled
from reconstruct.matching.mutual_nn import MutualNNConfig
from reconstruct.matching.pairs import sequential_pairs
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.matches import MatchStore, key_pair
from reconstruct.types import ImagePair, LocalFeatures

IMAGES, OVERLAP = 12, 6
SETTINGS = {
    "mutual": MutualNNConfig(),
    "ratio 0.9": MutualNNConfig(ratio=0.9),
    "filter": MutualNNConfig(filter=ConsensusConfig()),
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
COLUMNS = ("set", "settings", "product", "+ argmax", "calls", "stage", "stage / (product + argmax)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy", type=int, default=0, help="processes beside this one")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    parser.add_argument(
        "--sets", nargs="+", default=["1800x64", "2500x512"], help="rows x dims, or folders"
    )
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, help="at most so many of a set")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="which seconds count")
    args = parser.parse_args()
    command = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(command) for _ in range(args.busy)]
    torch.set_num_threads(args.threads)
    print(f"{platform.machine()}, {args.threads} threads, {args.busy} busy, {date.today()}\n")
    try:
        rows = table(args.sets, args.settings, args.rounds, args.pairs, CLOCKS[args.clock])
        for row in chain((COLUMNS, ("---",) * len(COLUMNS)), rows):
            print("| " + " | ".join(row) + " |", flush=True)
    finally:
        for process in others:
            process.kill()


def table(
    sets: Sequence[str],
    settings: Sequence[str],
    rounds: int,
    limit: int | None,
    clock: Callable[[], float],
) -> Iterator[Sequence[str]]:
    for name in sets:
        with tempfile.TemporaryDirectory() as scratch:
            folder, pairs = described(name, Path(scratch))
            for label in settings:
                times = measured(folder, pairs[:limit], SETTINGS[label], rounds, clock)
                ratio = times[3] / times[1]
                yield name, label, *(f"{1e3 * t:.1f} ms" for t in times), f"{ratio:.2f}"


def described(name: str, scratch: Path) -> tuple[Path, list[ImagePair]]:
    """A folder of features, and the pairs to match."""
    if Path(name).is_dir():
        stored = MatchStore(Path(name) / "matches").fingerprints()
        return Path(name) / "features", tiled([key_pair(key) for key in stored])
    rows, dim = map(int, name.split("x"))
    images = dict(made_up(rows, dim))
    write(scratch, images)
    return scratch, sequential_pairs(list(images), OVERLAP)


def made_up(rows: int, dim: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Images whose descriptors are those of one set of points, with noise."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(rows, dim))
    for i in range(IMAGES):
        values = points + rng.normal(scale=0.7, size=points.shape)
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        yield f"{i:03d}", values.astype(np.float32)


def measured(
    folder: Path,
    pairs: Sequence[ImagePair],
    config: MatchConfig,
    rounds: int,
    clock: Callable[[], float],
) -> Sequence[float]:
    """Seconds a pair of the product, with its argmax, of calls, and of the stage's work."""
    matcher, store = create(config, "cpu"), FeatureStore(folder)
    names = sorted({name for pair in pairs for name in pair})
    images = {name: store.load(name) for name in names}
    prepared = {name: matcher.prepare(image) for name, image in images.items()}
    tensors = {
        name: torch.from_numpy(image.descriptors.astype(np.float32))
        for name, image in images.items()
    }
    ways: list[Callable[[], object]] = [
        lambda: [tensors[a] @ tensors[b].T for a, b in pairs],
        lambda: [(tensors[a] @ tensors[b].T).argmax(1) for a, b in pairs],
        lambda: [matcher.match(prepared[a], prepared[b]) for a, b in pairs],
        lambda: stage(matcher, pairs, folder),
    ]
    seconds = np.zeros((rounds, len(ways)))
    for i, j in np.ndindex(seconds.shape):
        start = clock()
        ways[j]()
        seconds[i, j] = clock() - start
    return (seconds.min(axis=0) / len(pairs)).tolist()  # type: ignore[no-any-return]


def write(folder: Path, images: dict[str, NDArray[np.float32]]) -> None:
    rng = np.random.default_rng(1)
    features = {
        name: LocalFeatures(
            keypoints=rng.uniform(0, 768, (len(values), 2)).astype(np.float32),
            scales=np.ones(len(values), np.float32),
            scores=np.ones(len(values), np.float32),
            descriptors=values.astype(np.float16),
            image_size=(1024, 768),
        )
        for name, values in images.items()
    }
    FeatureStore(folder).write([FeatureStore.record(n, "", f) for n, f in features.items()])


def stage(matcher: Matcher, pairs: Sequence[ImagePair], folder: Path) -> int:
    store = FeatureStore(folder)
    found = match_pairs(matcher, pairs, lambda name: store.load(name, matcher.reads))
    return sum(len(matches) for _, matches in found)


if __name__ == "__main__":
    main()
