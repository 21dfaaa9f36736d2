"""What D2-Net extraction costs, beside a bare forward of the same network; prints a table.

    python tests/benchmarks/extraction.py --images FOLDER [--only speed memory compaction]

speed: seconds an image, of `extract` (decoding and resizing excluded) and of the network alone at
the same sizes, taken in turns in one process, the least of several. memory: the peak of a process
of its own for each line. compaction: bytes an image, and the matches kept over the pairs of the
folder before and after two-view verification.
"""

from __future__ import annotations

import argparse
import itertools
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from reconstruct import colmap
from reconstruct.features.backend import make_network
from reconstruct.features.compaction import Encoding, compact, expand, fit_basis
from reconstruct.features.d2net import D2Net, D2NetConfig
from reconstruct.features.resizing import ResizedImage
from reconstruct.features.vgg import build_trunk
from reconstruct.features.weights import load_weights
from reconstruct.images import EXTENSIONS, read_image
from reconstruct.matching.mutual_nn import match
from reconstruct.types import ImageArray, LocalFeatures

Row = tuple[int, int]
Network = Callable[[torch.Tensor], torch.Tensor]
BACKENDS = ("torch", "onnxruntime")
CPU = torch.device("cpu")
REPEATS = 2
SCALES = (0.5, 1.0, 2.0)
SPEED_SIZES = {False: (1024, 682), True: (1024, 682)}
COMPACTION_EDGE = 1024
MEMORY_SIZES = {False: (1600, 1200), True: (1024, 682)}
FORMS: tuple[tuple[int | None, Encoding], ...] = (
    (None, "float32"),
    (None, "float16"),
    (None, "uint8"),
    (128, "float32"),
    (128, "float16"),
    (128, "uint8"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="a folder of photos")
    parser.add_argument("--only", nargs="+", default=["speed", "memory", "compaction"])
    parser.add_argument("--peak", help=argparse.SUPPRESS)  # measure this process, for `memory`
    args = parser.parse_args()
    paths = sorted(p for p in args.images.iterdir() if p.suffix.lower() in EXTENSIONS)
    if not paths:
        parser.error(f"{args.images}: no images")
    if args.peak:
        run_for_peak(args.peak, read_image(paths[0]))
        return
    print(f"{machine()}, {date.today()}")
    tables = {"speed": speed, "memory": memory, "compaction": compaction}
    for name in args.only:
        print()
        for row in tables[name](paths):
            print("| " + " | ".join(row) + " |", flush=True)


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = models[0] if models else platform.processor()
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def speed(paths: Sequence[Path]) -> Iterator[Sequence[str]]:
    yield "mode", "backend", "size", "network s", "total s", "total / network"
    yield ("---",) * 6
    photo = read_image(paths[0])
    for multiscale, size in SPEED_SIZES.items():
        prepared = resized(photo, size)
        inputs = network_inputs(size, multiscale)
        reference = least([partial(forwards, plain_network(), inputs)])[0]
        yield mode(multiscale), "torch, default layout", f"{size}", f"{reference:.2f}", "", ""
        for backend in BACKENDS:
            extractor = D2Net(settings(backend, multiscale), device="cpu")
            bare, total = least(
                [
                    partial(forwards, network_of(backend), inputs),
                    partial(extractor.extract, [prepared]),
                ]
            )
            seconds = (f"{bare:.2f}", f"{total:.2f}", f"{total / bare:.3f}")
            yield mode(multiscale), backend, f"{size}", *seconds


def least(functions: Sequence[Callable[[], object]]) -> list[float]:
    """Least seconds of each, in turns, after one round that is not counted."""
    times = np.zeros((REPEATS + 1, len(functions)))
    for i, j in np.ndindex(times.shape):
        start = time.perf_counter()
        functions[j]()
        times[i, j] = time.perf_counter() - start
    return [float(t) for t in times[1:].min(axis=0)]


def forwards(network: Network, inputs: Sequence[torch.Tensor]) -> None:
    with torch.inference_mode():
        for images in inputs:
            network(images)


def network_inputs(size: tuple[int, int], multiscale: bool) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    scales = SCALES if multiscale else (1.0,)
    sizes = [(int(size[1] * scale), int(size[0] * scale)) for scale in scales]
    return [60 * torch.randn(1, 3, *shape, generator=generator) for shape in sizes]


def plain_network() -> Network:
    return build_trunk(load_weights("vgg16").tensors)


def network_of(backend: str) -> Network:
    return make_network(backend, load_weights("vgg16").tensors, use_relu=True, device=CPU)


def settings(backend: str, multiscale: bool) -> D2NetConfig:
    return D2NetConfig.model_validate(
        {"backend": backend, "multiscale": multiscale, "scales": SCALES}
    )


def resized(photo: ImageArray, size: tuple[int, int]) -> ResizedImage:
    pixels = cv2.resize(photo, size, interpolation=cv2.INTER_AREA)
    return ResizedImage(np.asarray(pixels, np.uint8), size)


def mode(multiscale: bool) -> str:
    return "multi-scale" if multiscale else "single-scale"


def memory(paths: Sequence[Path]) -> Iterator[Sequence[str]]:
    yield "mode", "backend", "size", "network MiB", "total MiB", "total / network"
    yield ("---",) * 6
    for multiscale, size in MEMORY_SIZES.items():
        plain = peak(paths[0], f"network:plain:{multiscale:d}")
        yield mode(multiscale), "torch, default layout", f"{size}", f"{plain:.0f}", "", ""
        for backend in BACKENDS:
            bare = peak(paths[0], f"network:{backend}:{multiscale:d}")
            total = peak(paths[0], f"extract:{backend}:{multiscale:d}")
            figures = (f"{bare:.0f}", f"{total:.0f}", f"{total / bare:.3f}")
            yield mode(multiscale), backend, f"{size}", *figures


def peak(photo: Path, what: str) -> float:
    """Peak resident MiB of a fresh process that does ``what`` (see `run_for_peak`)."""
    command = [sys.executable, __file__, "--images", str(photo.parent), "--peak", what]
    path = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    result = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(result.stdout.split()[-1])


def run_for_peak(what: str, photo: ImageArray) -> None:
    """Prints this process's peak in MiB after ``network|extract : backend : multiscale``, twice:
    the first run may allocate what the second one keeps."""
    step, backend, flag = what.split(":")
    multiscale = flag == "1"
    size = MEMORY_SIZES[multiscale]
    prepared = resized(photo, size)
    if step == "extract":
        extractor = D2Net(settings(backend, multiscale), device="cpu")
        for _ in range(2):
            extractor.extract([prepared])
    else:
        network = plain_network() if backend == "plain" else network_of(backend)
        for _ in range(2):
            forwards(network, network_inputs(size, multiscale))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def compaction(paths: Sequence[Path]) -> Iterator[Sequence[str]]:
    yield (
        "descriptors",
        "kB an image",
        "matches",
        "as with 512 float32",
        "verified",
        "of 512 float32",
    )
    yield ("---",) * 6
    extractor = D2Net(D2NetConfig(max_edge=COMPACTION_EDGE), device="cpu")
    features = [extractor(read_image(path)) for path in paths]
    cameras = [colmap.guess_camera(path, "SIMPLE_RADIAL") for path in paths]
    reference: list[set[Row]] = []
    reference_verified = 0
    for dim, encoding in FORMS:
        stored = list(compacted(features, dim, encoding))
        kilobytes = np.mean([item.nbytes for item in stored]) / 1000
        matches = [
            match(a, b, device="cpu") for a, b in itertools.combinations(map(expand, stored), 2)
        ]
        views = list(itertools.combinations(zip(cameras, features, strict=True), 2))
        verified = sum(verified_count(*v, m) for v, m in zip(views, matches, strict=True))
        rows = [{(int(a), int(b)) for a, b in found} for found in matches]
        reference, reference_verified = reference or rows, reference_verified or verified
        same = sum(len(a & b) for a, b in zip(rows, reference, strict=True))
        kept = same / sum(map(len, reference))
        total = sum(map(len, rows))
        name = f"{dim or extractor.dim} {encoding}"
        share = f"{verified / reference_verified:.1%}"
        yield name, f"{kilobytes:.0f}", f"{total}", f"{kept:.1%}", f"{verified}", share


def verified_count(
    view0: tuple[colmap.Camera, LocalFeatures],
    view1: tuple[colmap.Camera, LocalFeatures],
    matches: np.ndarray,
) -> int:
    """How many matches agree with one two-view geometry, with the settings of sfm.yaml."""
    (camera0, found0), (camera1, found1) = view0, view1
    points0, points1 = (f.keypoints.astype(np.float64) for f in (found0, found1))
    geometry = colmap.estimate_two_view_geometry(
        camera0, points0, camera1, points1, matches, colmap.TwoViewOptions(), seed=0
    )
    return len(geometry.inliers)


def compacted(
    features: Sequence[LocalFeatures], dim: int | None, encoding: Encoding
) -> Iterator[np.ndarray]:
    basis = fit_basis((f.descriptors for f in features), dim) if dim else None
    for item in features:
        yield compact(item.descriptors, basis, encoding)


if __name__ == "__main__":
    main()
