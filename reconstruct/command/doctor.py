"""``reconstruct doctor``: what this machine offers, and what a folder of photos promises."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from reconstruct.features.download import default_cache_dir
from reconstruct.features.weights import DOWNLOADS, EMBEDDED, load_weights

Level = Literal["ok", "note", "trouble"]

EXTRAS = {
    "cluster": ("distributed", "several processes or machines"),
    "heif": ("pillow_heif", "photos of phones (.heic)"),
    "raw": ("rawpy", "raw photos (.dng, .cr2, .nef ...)"),
    "video": ("av", "frames of videos"),
    "faiss": ("faiss", "retrieval among many photos, direct search in RGB-D maps"),
    "hesaff": ("pyhesaff", "extractor hesaff"),
    "kornia": ("kornia", "extractor kornia"),
    "plot": ("matplotlib", "plots, curves of benchmarks"),
    "view": ("viser", "reconstruct view"),
}
"""Extra of the package -> the module that it brings, and what that is for."""

LOW_DISK_BYTES = 10e9


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of the report. note: worth knowing; trouble: something will fail or go badly."""

    level: Level
    subject: str
    text: str


def examine_machine(output: Path) -> list[Finding]:
    """Versions, devices, extras, weights, and the disk under ``output``."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _versions,
        _devices,
        _extras,
        _weights,
        lambda: _disk(output),
    ]
    return [finding for check in checks for finding in check()]


def _versions() -> Iterator[Finding]:
    yield Finding("ok", "python", f"{platform.python_version()} on {platform.platform(terse=True)}")
    for module, package in (
        ("torch", "torch"),
        ("reconstruct.colmap", "pycolmap"),
        ("cv2", "opencv-python-headless"),
        ("h5py", "h5py"),
        ("onnxruntime", "onnxruntime"),
    ):
        try:
            importlib.import_module(module)
            yield Finding("ok", package, metadata.version(package))
        except (ImportError, OSError) as error:  # OSError: a shared library is missing
            yield Finding("trouble", package, f"cannot be imported: {error}; install it again")


def _devices() -> Iterator[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("ok", "cpu", f"{cores} cores, {torch.get_num_threads()} threads of torch")
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        text = f"{found.name}, {found.total_memory / 2**30:.0f} GiB"
        yield Finding("ok", f"cuda:{index}", text)
    if torch.backends.mps.is_available():
        yield Finding("note", "mps", "Apple's GPU, used with --device mps only")
    if not torch.cuda.device_count():
        why = "no CUDA device" if torch.version.cuda else "this torch is built without CUDA"
        yield Finding("note", "cuda", f"{why}: networks run on the CPU, seconds a photo")


def _extras() -> Iterator[Finding]:
    for extra, (module, purpose) in EXTRAS.items():
        try:
            importlib.import_module(module)
            yield Finding("ok", extra, f"installed: {purpose}")
        except (ImportError, OSError) as error:
            absent = isinstance(error, ModuleNotFoundError) and error.name == module
            state = "not installed" if absent else f"broken ({error})"
            advice = f"pip install 'reconstruct[{extra}]'"
            yield Finding("note", extra, f"{state}; for {purpose}: {advice}")


def _weights() -> Iterator[Finding]:
    for name in EMBEDDED:
        load_weights(name)  # raises WeightsError where the installation is damaged
        yield Finding("ok", f"weights {name}", "part of the package")
    folder = default_cache_dir()
    for name, file in DOWNLOADS.items():
        present = (folder / file).is_file()
        text = str(folder / file) if present else f"not here; downloaded to {folder} when used"
        yield Finding("ok" if present else "note", f"weights {name}", text)


def _disk(output: Path) -> Iterator[Finding]:
    folder = next(p for p in [output.absolute(), *output.absolute().parents] if p.is_dir())
    free = shutil.disk_usage(folder).free
    low = free < LOW_DISK_BYTES
    yield Finding("trouble" if low else "ok", "disk", f"{free / 1e9:.1f} GB free at {folder}")
    if not os.access(folder, os.W_OK):
        yield Finding("trouble", "disk", f"{folder} cannot be written to; choose another --output")
