"""HPatches sequences (Balntas et al., CVPR 2017): photos of planes, related by homographies.

    ROOT/i_NAME/  illumination changes      1.ppm ... 6.ppm (or .png), H_1_2 ... H_1_6
    ROOT/v_NAME/  viewpoint changes

``H_1_k`` maps pixels of image 1 to image k. In the files the first pixel's centre is (0, 0); here,
as everywhere in the package, it is (0.5, 0.5), and the matrices are converted when they are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from reconstruct.config import Section
from reconstruct.datasets import Dataset
from reconstruct.datasets.number_rows import read_rows
from reconstruct.errors import DataError, UsageError, suggestion
from reconstruct.geometry import Float64
from reconstruct.images import read_image, shrink, to_grey
from reconstruct.types import ImageArray, ImagePair

LEFT_OUT = frozenset(
    {
        "i_contruction",
        "i_crownnight",
        "i_dc",
        "i_pencils",
        "i_whitebuilding",
        "v_artisans",
        "v_astronautis",
        "v_talent",
    }
)
"""Sequences larger than 1600 x 1200, which D2-Net's and later papers leave out (108 remain)."""

FULL = 108
TARGETS = (2, 3, 4, 5, 6)
CHECKED_EDGE_PX = 320
MIN_OVERLAP = 0.05
REVERSED_BY, REVERSED_FROM = 0.1, 0.5
"""A sequence counts as reversed if its inverse homographies correlate better by at least the first
value, and with at least the second: a sequence that correlates neither way is difficult, not
reversed."""

# Files count from the centre of the first pixel, COLMAP pixels from its corner.
_COLMAP_FROM_FILE = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
_FILE_FROM_COLMAP = np.array([[1.0, 0.0, -0.5], [0.0, 1.0, -0.5], [0.0, 0.0, 1.0]])


class HPatchesConfig(Section):
    """Section ``dataset`` with ``format: hpatches``."""

    format: Literal["hpatches"]
    images: str
    """The folder of the sequences."""
    sequences: tuple[str, ...] | None = Field(None, strict=False)
    """Only these; null: all but the eight that are too large."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HPatches:
    """Images and ground truth.

    Attributes:
        dataset: The images.
        homographies: Pair (1, k) of image names -> (3, 3) k_from_1 in COLMAP pixels.
        left_out: Sequences that are present but not used, as the protocol requires.
    """

    dataset: Dataset
    homographies: dict[ImagePair, Float64]
    sequences: tuple[str, ...]
    left_out: tuple[str, ...]


def load_hpatches(config: HPatchesConfig) -> HPatches:
    """The sequences below ``config.images``; incomplete ones are skipped and named.

    Raises UsageError for a missing folder or sequence, DataError if there is no sequence or a
    matrix is not a homography between photos.
    """
    root = Path(config.images)
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder; give that of the sequences with --images")
    present = sorted(p.name for p in root.iterdir() if p.is_dir() and p.name[:2] in ("i_", "v_"))
    for name in config.sequences or ():
        if name not in present:
            raise UsageError(f"dataset.sequences: no {name!r} in {root}{suggestion(name, present)}")
    chosen = sorted(config.sequences or [name for name in present if name not in LEFT_OUT])
    skipped: dict[str, str] = {}
    names: list[str] = []
    homographies: dict[ImagePair, Float64] = {}
    for sequence in chosen:
        files = _images(root / sequence)
        missing = _missing(root / sequence, files)
        if missing:
            skipped[sequence] = f"incomplete: no {', '.join(missing)}"
            continue
        names += [f"{sequence}/{file}" for file in files.values()]
        for k in TARGETS:
            pair = (f"{sequence}/{files[1]}", f"{sequence}/{files[k]}")
            homographies[pair] = read_homography(root / sequence / f"H_1_{k}")
    if not homographies:
        raise DataError(
            f"{root}: no complete sequence (folders i_* and v_* with 1.ppm ... 6.ppm or .png and "
            "H_1_2 ... H_1_6)"
        )
    return HPatches(
        dataset=Dataset(root=root, names=tuple(sorted(names)), skipped=skipped),
        homographies=homographies,
        sequences=tuple(name for name in chosen if name not in skipped),
        left_out=tuple(name for name in present if name not in chosen),
    )


def _images(folder: Path) -> dict[int, str]:
    """Number of an image -> file."""
    files = {}
    for k in (1, *TARGETS):
        present = [f"{k}{ext}" for ext in (".ppm", ".png") if (folder / f"{k}{ext}").is_file()]
        if present:
            files[k] = present[0]
    return files


def _missing(folder: Path, files: dict[int, str]) -> list[str]:
    images = [f"image {k}" for k in (1, *TARGETS) if k not in files]
    return images + [f"H_1_{k}" for k in TARGETS if not (folder / f"H_1_{k}").is_file()]


def read_homography(path: Path) -> Float64:
    """Read a (3, 3) matrix, converted to COLMAP pixels, with last entry 1.

    Raises DataError unless it is possible for photos of one side of a plane: nine finite numbers,
    last one not 0, determinant positive.
    """
    matrix = read_rows(path, 3)
    if len(matrix) != 3 or matrix[2, 2] == 0:
        raise DataError(f"{path}: expected three rows of three numbers, the last not 0")
    converted = _COLMAP_FROM_FILE @ (matrix / matrix[2, 2]) @ _FILE_FROM_COLMAP
    determinant = np.linalg.det(converted)
    if determinant < 1e-9:
        raise DataError(
            f"{path}: its determinant is {determinant:.3g}; a homography between two photos of "
            "one side of a plane has a positive one"
        )
    return np.asarray(converted / converted[2, 2])


def check_directions(data: HPatches) -> dict[str, float]:
    """Sequence -> mean correlation of image k with the warp of image 1, -1 to 1.

    Raises DataError if the inverse homographies of a sequence fit its images clearly better: then
    its files map image k to image 1.
    """
    correlations: dict[str, float] = {}
    for sequence in data.sequences:
        pairs = [pair for pair in data.homographies if pair[0].split("/")[0] == sequence]
        first = to_grey(read_image(data.dataset.path(pairs[0][0])))
        forward, backward = [], []
        for pair in pairs:
            second = to_grey(read_image(data.dataset.path(pair[1])))
            homography = data.homographies[pair]
            forward.append(warp_correlation(first, second, homography))
            backward.append(warp_correlation(first, second, np.linalg.inv(homography)))
        right, inverse = float(np.mean(forward)), float(np.mean(backward))
        correlations[sequence] = round(right, 4)
        if inverse > max(right + REVERSED_BY, REVERSED_FROM):
            raise DataError(
                f"{data.dataset.root / sequence}: H_1_k must map image 1 to image k, but image 1 "
                f"warped by them correlates with image k at {right:.2f}, and warped by their "
                f"inverses at {inverse:.2f}; invert these files"
            )
    return correlations


def warp_correlation(first: ImageArray, second: ImageArray, homography: NDArray[Any]) -> float:
    """Correlation of the second image with the first one, warped; computed at a reduced size.

    Args:
        first: (H, W) uint8 grey.
        second: (H, W) uint8 grey.
        homography: (3, 3) second_from_first.

    Returns:
        -1 to 1; -1 if they hardly overlap.
    """
    small1, shrink1 = _shrunk(first)
    small2, shrink2 = _shrunk(second)
    # Resizing scales COLMAP pixels; OpenCV counts from pixel centres as the files do.
    warp = _FILE_FROM_COLMAP @ shrink2 @ homography @ np.linalg.inv(shrink1) @ _COLMAP_FROM_FILE
    size = small2.shape[1], small2.shape[0]
    warped = cv2.warpPerspective(small1, warp, size).astype(np.float64)
    seen = cv2.warpPerspective(np.full_like(small1, 255), warp, size) == 255
    if seen.mean() < MIN_OVERLAP:
        return -1.0
    a, b = warped[seen], small2[seen].astype(np.float64)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm > 0 else 0.0


def _shrunk(grey: ImageArray) -> tuple[ImageArray, Float64]:
    """The image with a longest edge of at most CHECKED_EDGE_PX, and (3, 3) shrunk_from_original."""
    small = shrink(grey, CHECKED_EDGE_PX)
    return small, np.diag([small.shape[1] / grey.shape[1], small.shape[0] / grey.shape[0], 1.0])
