"""The nearest 20 of many global descriptors, exact and nearly (faiss); prints a table.

    python tests/benchmarks/retrieval.py [--photos 100000] [--threads 1] [--sets places street]

Made-up unit vectors of 512 numbers. places: 40 photos look alike on the average, as tourist photos
do; few: 20, so that half of them have not 20 to find, and what else is nearest is noise.
street: each is most like its neighbours, as frames of a long drive are, with no gap between them.
Recall is the share of the exact nearest that is found, over ``--asked`` photos, of whose exact
search the seconds are told for all. Memory is the peak of the process beyond what it held before.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from datetime import date
from functools import partial

import faiss
import numpy as np
import torch

from reconstruct.memory import peak_mb, restart_peak
from reconstruct.retrieval import approximate
from reconstruct.retrieval.approximate import nearly_nearest
from reconstruct.retrieval.nearest import nearest, neighbor_pairs
from reconstruct.types import FloatArray

DIM, NEIGHBORS = 512, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("--asked", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--probes", type=int, nargs="+", default=[approximate.PROBES])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    faiss.omp_set_num_threads(args.threads)
    print(f"{platform.machine()}, {args.threads} threads, {date.today()}")
    print(f"\n| {args.photos} x {DIM} | search | s | MB | recall at {NEIGHBORS} | pairs | s, MB |")
    print("|---" * 7 + "|")
    for name in args.sets:
        vectors = SETS[name](args.photos, np.random.default_rng(0))
        asked = np.random.default_rng(1).choice(len(vectors), args.asked, replace=False)
        start, before = time.perf_counter(), restarted()
        exact, _ = nearest(vectors[asked], vectors, NEIGHBORS + 1)
        seconds = (time.perf_counter() - start) * len(vectors) / len(asked)
        print(f"| {name} | exact | {seconds:.0f} | {used(before):.0f} | 1 | | |", flush=True)
        for approximate.PROBES in args.probes:
            start, before = time.perf_counter(), restarted()
            found, _ = nearly_nearest(vectors, vectors, NEIGHBORS, itself=True)
            seconds, memory = time.perf_counter() - start, used(before)
            recall = np.mean(
                [
                    np.isin(row[row != own][:NEIGHBORS], found[own]).mean()
                    for own, row in zip(asked, exact, strict=True)
                ]
            )
            start, before = time.perf_counter(), restarted()
            names = [f"{i:06d}.jpg" for i in range(len(vectors))]
            pairs = len(neighbor_pairs(names, names, found))
            written = f"{time.perf_counter() - start:.1f}, {used(before):.0f}"
            print(
                f"| | faiss, {approximate.PROBES} cells | {seconds:.0f} | {memory:.0f} "
                f"| {recall:.4f} | {pairs} | {written} |",
                flush=True,
            )


def places(photos: int, rng: np.random.Generator, alike: int = 40) -> FloatArray:
    """So many photos of each place on the average, and others as like as noise makes them."""
    centers = rng.standard_normal((photos // alike, DIM), np.float32)
    vectors = centers[rng.integers(0, len(centers), photos)]
    return unit(vectors + 0.8 * rng.standard_normal((photos, DIM), np.float32))


def street(photos: int, rng: np.random.Generator) -> FloatArray:
    """A walk whose steps turn the descriptor slowly: what is 30 photos away still looks alike."""
    steps = 0.25 * rng.standard_normal((photos, DIM), np.float32)
    vectors = np.empty_like(steps)
    place = rng.standard_normal(DIM, np.float32)
    for i, step in enumerate(steps):
        place = np.sqrt(1 - 0.25**2) * place + step
        vectors[i] = place
    return unit(vectors + 0.4 * rng.standard_normal((photos, DIM), np.float32))


def unit(vectors: FloatArray) -> FloatArray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


SETS: dict[str, Callable[[int, np.random.Generator], FloatArray]] = {
    "places": places,
    "few": partial(places, alike=20),
    "street": street,
}


def restarted() -> float:
    restart_peak()
    return peak_mb() or 0.0


def used(before: float) -> float:
    return (peak_mb() or 0.0) - before


if __name__ == "__main__":
    main()
