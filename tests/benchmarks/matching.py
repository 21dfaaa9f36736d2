"""What matching costs, beside the bare product of the descriptors; prints a table.

    python tests/benchmarks/matching.py [--busy N] [--clock cpu] [--sets 1800x64 2500x512]

Milliseconds a pair on a CPU, taken in turns in one process, the least of several rounds: of the
product and its argmax alone (descriptors in memory, all threads of torch), of one call of the
matcher after the other, and of `match_pairs` from stored features, reading included. --busy:
beside so many processes that do nothing but use a core. --clock cpu: seconds of processor time, of
all threads, which other work on the machine disturbs less.
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
from reconstruct.matching.many import match_pairs
from reconstruct.matching.mutual_nn import MutualNNConfig
from reconstruct.matching.pairs import sequential_pairs
from reconstruct.storage.features import FeatureStore
from reconstruct.types import ImagePair, LocalFeatures

IMAGES, OVERLAP, ROUNDS = 12, 6, 3
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
COLUMNS = ("set", "settings", "product", "+ argmax", "calls", "stage", "stage / (product + argmax)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy", type=int, default=0, help="processes beside this one")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    parser.add_argument("--sets", nargs="+", default=["1800x64", "2500x512"], help="rows x dims")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="which seconds count")
    args = parser.parse_args()
    command = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(command) for _ in range(args.busy)]
    torch.set_num_threads(args.threads)
    print(f"{platform.machine()}, {args.threads} threads, {args.busy} busy, {date.today()}\n")
    try:
        for row in chain((COLUMNS, ("---",) * len(COLUMNS)), table(args.sets, CLOCKS[args.clock])):
            print("| " + " | ".join(row) + " |", flush=True)
    finally:
        for process in others:
            process.kill()


def table(sets: Sequence[str], clock: Callable[[], float]) -> Iterator[Sequence[str]]:
    for size in sets:
        rows, dim = map(int, size.split("x"))
        images = dict(described(rows, dim))
        for config in (MutualNNConfig(), MutualNNConfig(ratio=0.9)):
            label = "mutual" if config.ratio is None else f"ratio {config.ratio}"
            times = measured(images, config, clock)
            ratio = times[3] / times[1]
            yield size, label, *(f"{1e3 * t:.1f} ms" for t in times), f"{ratio:.2f}"


def described(rows: int, dim: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Images whose descriptors are those of one set of points, with noise."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(rows, dim))
    for i in range(IMAGES):
        values = points + rng.normal(scale=0.7, size=points.shape)
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        yield f"{i:03d}", values.astype(np.float32)


def measured(
    images: dict[str, NDArray[np.float32]], config: MatchConfig, clock: Callable[[], float]
) -> Sequence[float]:
    """Seconds a pair of the product, with its argmax, of calls, and of the stage's work."""
    pairs = sequential_pairs(list(images), OVERLAP)
    matcher = create(config, "cpu")
    tensors = {name: torch.from_numpy(values) for name, values in images.items()}
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), images)
        ways: list[Callable[[], object]] = [
            lambda: [tensors[a] @ tensors[b].T for a, b in pairs],
            lambda: [(tensors[a] @ tensors[b].T).argmax(1) for a, b in pairs],
            lambda: [matcher.match(tensors[a], tensors[b]) for a, b in pairs],
            lambda: stage(matcher, pairs, Path(folder)),
        ]
        seconds = np.zeros((ROUNDS, len(ways)))
        for i, j in np.ndindex(seconds.shape):
            start = clock()
            ways[j]()
            seconds[i, j] = clock() - start
    return (seconds.min(axis=0) / len(pairs)).tolist()  # type: ignore[no-any-return]


def write(folder: Path, images: dict[str, NDArray[np.float32]]) -> None:
    features = {
        name: LocalFeatures(
            keypoints=np.zeros((len(values), 2), np.float32),
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
