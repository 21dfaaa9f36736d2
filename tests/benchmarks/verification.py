"""What the search for two-view geometries finds, and what it takes; prints a table.

    python tests/benchmarks/verification.py FEATURES [--reference MODEL] [--pairs 200]

FEATURES is an output folder with features/, of which all pairs in matches/ are verified; without
that folder all pairs of photos are matched first, each with its nearest. --reference: a COLMAP
model with intrinsics and poses; a pair is right if at least half of its inliers lie as near the
epipolar lines of these poses as an inlier may; without it cameras are guessed, and nothing is known
to be right. --input-scale: pixels of the photo in one of the extractor's input. Milliseconds are
those of the processor, one thread, so that other work on the machine disturbs them little.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Sequence
from datetime import date
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from reconstruct import colmap
from reconstruct.matching import create
from reconstruct.matching.mutual_nn import MutualNNConfig
from reconstruct.stages.verify import Inputs
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.matches import MatchStore, key_pair
from reconstruct.types import ImagePair

SEARCHES: Sequence[dict[str, Any]] = (
    {"search": "colmap", "max_trials": 10_000, "min_inlier_ratio": 0.25},
    {"search": "colmap", "max_trials": 20_000, "min_inlier_ratio": 0.1},
    {"max_trials": 5_000},
    {"max_trials": 10_000},
    {"max_trials": 20_000},
    {"max_trials": 20_000, "min_inlier_ratio": 0.25},
    {"max_trials": 20_000, "confidence": 0.9999},
    {"max_trials": 100_000},
    {"search_band": 0.25},
    {"search_band": 0.5},
    {"search_band": 1.0},
)
COLUMNS = (
    "search",
    "trials",
    "least ratio",
    "confidence",
    "band",
    "verified",
    "right",
    "inliers",
    "ms",
    "median",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("features", type=Path)
    parser.add_argument("--reference", type=Path)
    parser.add_argument("--pairs", type=int, help="evenly drawn from all")
    parser.add_argument("--input-scale", type=float, default=1.0)
    parser.add_argument("--searches", type=int, nargs="+", default=range(len(SEARCHES)))
    args = parser.parse_args()
    data = read(args.features, args.pairs)
    cameras = find_cameras(args.features, args.reference, data)
    poses = colmap.model_poses(colmap.read_model(args.reference)) if args.reference else {}
    counts = [len(inputs[2]) for inputs in data.values()]
    print(f"{len(data)} pairs, median of {np.median(counts):.0f} matches")
    print(f"{platform.machine()}, one thread, {date.today()}\n")
    for row in (COLUMNS, ("---",) * len(COLUMNS)):
        print("| " + " | ".join(row) + " |")
    for number in args.searches:
        options = colmap.TwoViewOptions(max_error_px=4.0 * args.input_scale, **SEARCHES[number])
        told = (options.search, options.max_trials, options.min_inlier_ratio, options.confidence)
        told += (options.search_band,)
        found = measured(data, cameras, poses, options)
        print("| " + " | ".join(map(str, (*told, *found))) + " |", flush=True)


def read(folder: Path, limit: int | None) -> dict[ImagePair, Inputs]:
    features, matches = FeatureStore(folder / "features"), MatchStore(folder / "matches")
    stored = sorted(key_pair(key) for key in matches.fingerprints())
    pairs = stored or list(combinations(features.names, 2))
    if limit is not None:
        pairs = [pairs[i] for i in np.linspace(0, len(pairs) - 1, limit).astype(int)]
    load: Callable[[ImagePair], Any] = matches.load if stored else nearest(features)
    return {p: (features.keypoints(p[0]), features.keypoints(p[1]), load(p)) for p in pairs}


def nearest(features: FeatureStore) -> Callable[[ImagePair], Any]:
    matcher = create(MutualNNConfig(), "cpu")
    prepared = {name: matcher.prepare(features.load(name)) for name in features.names}
    return lambda pair: matcher.match(prepared[pair[0]], prepared[pair[1]]).indices


def find_cameras(
    folder: Path, reference: Path | None, data: dict[ImagePair, Inputs]
) -> dict[str, colmap.Camera]:
    names = {name for pair in data for name in pair}
    if reference is not None:
        known = colmap.model_cameras(colmap.read_model(reference))
        for camera in known.values():
            camera.has_prior_focal_length = True
        return {name: known[name] for name in names}
    sizes = FeatureStore(folder / "features").image_sizes(names)
    guessed = {}
    for number, (name, (w, h)) in enumerate(sorted(sizes.items()), start=1):
        params = [1.2 * max(w, h), w / 2, h / 2, 0.0]
        guessed[name] = colmap.make_camera("SIMPLE_RADIAL", params, (w, h))
        guessed[name].camera_id = number  # photos of one camera share a focal length
    return guessed


def measured(
    data: dict[ImagePair, Inputs],
    cameras: dict[str, colmap.Camera],
    poses: dict[str, Any],
    options: colmap.TwoViewOptions,
) -> tuple[str, ...]:
    """Verified pairs, right ones, mean inliers of the verified; milliseconds a pair, mean and
    median."""
    inliers, right, seconds = [], 0, list[float]()
    for pair, (first, second, matches) in data.items():
        views = cameras[pair[0]], first, cameras[pair[1]], second
        start = time.process_time()
        found = colmap.estimate_two_view_geometry(
            *views, matches, options, seed=colmap.pair_seed(0, pair)
        )
        seconds.append(time.process_time() - start)
        count = len(found.inliers)
        if not count:
            continue
        inliers.append(count)
        if poses:
            limits = {"max_error_px": options.max_error_px, "min_inliers": 1}
            known = poses[pair[0]], poses[pair[1]]
            agree = colmap.geometry_from_poses(*views, found.inliers, known, **limits)
            right += 2 * len(agree.inliers) >= count
    mean = np.mean(inliers) if inliers else 0.0
    told = str(right) if poses else "-"
    times = [f"{1e3 * value:.1f}" for value in (np.mean(seconds), np.median(seconds))]
    return str(len(inliers)), told, f"{mean:.1f}", *times


if __name__ == "__main__":
    main()
