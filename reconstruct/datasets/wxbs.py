"""WxBS (Mishkin et al., BMVC 2015): pairs across season, light, sensor and wide baselines.

    ROOT/SUBSET/PAIR/   01.png 02.png (or .jpg)   corrs.txt: x1 y1 x2 y2 a line, marked by hand

The scenes are rigid but not flat: the correspondences test a fundamental matrix. In the files the
first pixel's centre is taken as (0, 0); here it is (0.5, 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reconstruct.config import Section
from reconstruct.datasets import Dataset
from reconstruct.datasets.number_rows import read_rows
from reconstruct.errors import DataError, UsageError
from reconstruct.geometry import Float64
from reconstruct.types import ImagePair

EXTENSIONS = (".png", ".jpg", ".ppm")


class WxBSConfig(Section):
    """Section ``dataset`` with ``format: wxbs``."""

    format: Literal["wxbs"]
    images: str
    """The folder of the subsets (WGABS, WGALBS, WGLBS ...)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WxBS:
    """Images and ground truth.

    Attributes:
        dataset: The images.
        correspondences: Pair of image names -> (C, 4) x1 y1 x2 y2 in COLMAP pixels.
    """

    dataset: Dataset
    correspondences: dict[ImagePair, Float64]


def load_wxbs(config: WxBSConfig) -> WxBS:
    """All pairs below ``config.images``; incomplete ones are skipped and named.

    Raises UsageError for a missing folder, DataError if there is no pair or a corrs.txt is
    unreadable.
    """
    root = Path(config.images)
    if not root.is_dir():
        raise UsageError(f"{root}: no such folder; give that of the pairs with --images")
    skipped: dict[str, str] = {}
    correspondences: dict[ImagePair, Float64] = {}
    for file in sorted(root.glob("*/*/corrs.txt")):
        folder = file.parent.relative_to(root).as_posix()
        images = [_image(root, f"{folder}/{stem}") for stem in ("01", "02")]
        first, second = images
        if first is None or second is None:
            skipped[folder] = "incomplete: no 01 or no 02 beside corrs.txt"
            continue
        correspondences[first, second] = read_correspondences(file)
    if not correspondences:
        raise DataError(f"{root}: no pair (SUBSET/PAIR/ with 01, 02 as .png or .jpg and corrs.txt)")
    names = sorted(name for pair in correspondences for name in pair)
    dataset = Dataset(root=root, names=tuple(names), skipped=skipped)
    return WxBS(dataset=dataset, correspondences=correspondences)


def _image(root: Path, stem: str) -> str | None:
    return next((stem + ext for ext in EXTENSIONS if (root / (stem + ext)).is_file()), None)


def read_correspondences(path: Path) -> Float64:
    """(C, 4) x1 y1 x2 y2 in COLMAP pixels, C >= 1. Raises DataError."""
    return read_rows(path, 4) + 0.5  # from pixel centres to COLMAP pixels
