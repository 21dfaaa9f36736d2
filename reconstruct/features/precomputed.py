"""Features made by another program, in files beside the images or in another folder.

The layout is that of D2-Net's release: for ``a/1.ppm`` and method ``lf-net`` the file
``a/1.ppm.lf-net``, an .npz archive with

    keypoints    (N, 2) or (N, 3): x, y in pixels of the image, and a scale
    scores       (N,), may be absent
    descriptors  (N, D); brought to unit length here, as matching compares dot products
"""

from __future__ import annotations

import contextlib
import glob
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from reconstruct.config import Section
from reconstruct.errors import ImageError, UsageError
from reconstruct.images import image_size
from reconstruct.storage.arrays import read_npz
from reconstruct.types import ImageArray, LocalFeatures

LIMIT_BYTES = 1 << 30
"""Of one image's features."""
_JUDGES = 9

OUTSIDE = 0.05
"""Part of the picture by which keypoints may lie outside of it, as those of some programs do."""


class PrecomputedConfig(Section):
    """Section ``extract.local`` with ``name: precomputed``."""

    name: Literal["precomputed"] = "precomputed"
    method: str = Field("precomputed", min_length=1)
    """Extension of the files: image ``a/1.ppm`` has the file ``a/1.ppm.METHOD``."""
    folder: str | None = None
    """Folder of the files, which are named like the images; null: beside the images."""
    first_pixel: float = Field(0.0, ge=0, le=1)
    """Coordinate of the first pixel's centre in the files: 0 (most programs), 0.5 (COLMAP) or 1."""


@dataclass(frozen=True, slots=True, eq=False)
class _Prepared:
    features: LocalFeatures

    @property
    def shape(self) -> tuple[int, ...]:
        return self.features.image_size


class Precomputed:
    """Reads features instead of computing them; see `reconstruct.features.ReadsFiles`."""

    dim = 0
    """Not known before a file is read."""

    def __init__(self, config: PrecomputedConfig, *, device: str = "auto") -> None:
        self.config = config
        self._dimension: int | None = None
        self._looking = threading.Lock()

    def identity(self) -> dict[str, Any]:
        """The settings; the content of the files is part of the fingerprint of each image."""
        return {key: v for key, v in self.config.identity().items() if key != "folder"}

    def __call__(self, image: ImageArray) -> LocalFeatures:
        """Always raises UsageError: the file cannot be located from the pixels of an image."""
        return self.extract([self.prepare(image)])[0]

    def prepare(self, image: ImageArray) -> _Prepared:
        """Always raises UsageError, see `prepare_file`."""
        raise UsageError(
            "precomputed features are located by an image's name, not by its pixels: use them in a "
            "pipeline file, or read_precomputed(path, image_size, first_pixel)"
        )

    def file(self, root: Path, name: str) -> Path:
        """``<image>.<method>`` beside the image or below ``folder``."""
        folder = root if self.config.folder is None else Path(self.config.folder)
        return folder / f"{name}.{self.config.method}"

    def prepare_file(self, root: Path, name: str) -> _Prepared:
        """The features of image ``name``.

        Raises ImageError if they cannot be read, lie outside of the picture, or if their
        descriptors have another dimension than those of most images: they could not be compared.
        """
        path = self.file(root, name)
        found = read_precomputed(path, image_size(root / name), self.config.first_pixel)
        _check_inside(found, path)
        expected = self._usual_dimension(root)
        if expected is not None and not len(found):  # then its width says nothing
            found = LocalFeatures.empty(found.image_size, expected)
        if expected is not None and found.descriptors.shape[1] != expected:
            raise ImageError(
                f"{path}: descriptors of {found.descriptors.shape[1]} dimensions, where others "
                f"have {expected}"
            )
        return _Prepared(found)

    def _usual_dimension(self, root: Path) -> int | None:
        """The descriptor dimension that most of the first files with keypoints have.

        It must not depend on which image is read first: threads and resumed runs differ in that.
        """
        with self._looking:
            if self._dimension is None:
                folder = root if self.config.folder is None else Path(self.config.folder)
                files = sorted(folder.rglob(f"*.{glob.escape(self.config.method)}"))
                self._dimension = _most_common(files)
            return self._dimension

    def extract(self, batch: Sequence[_Prepared]) -> list[LocalFeatures]:
        """The features that `prepare_file` read."""
        return [item.features for item in batch]


def read_precomputed(
    path: Path, image_size: tuple[int, int], first_pixel: float = 0.0
) -> LocalFeatures:
    """The features in a file of the layout above.

    Args:
        path: The file.
        image_size: (width, height) of the photo.
        first_pixel: Coordinate of the first pixel's centre in the file.

    Raises:
        ImageError: The file is missing, unreadable, or of another layout.
    """
    try:
        arrays = read_npz(path, LIMIT_BYTES)
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no precomputed features") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: not a readable .npz archive ({error})") from error
    keypoints, descriptors = (_array(arrays, n, path) for n in ("keypoints", "descriptors"))
    if keypoints.ndim != 2 or keypoints.shape[1] not in (2, 3) or descriptors.ndim != 2:
        raise ImageError(
            f"{path}: expected keypoints (N, 2) or (N, 3) and descriptors (N, D), got "
            f"{keypoints.shape} and {descriptors.shape}"
        )
    count = len(keypoints)
    scores = _array(arrays, "scores", path) if "scores" in arrays else np.ones(count)
    if len(descriptors) != count or scores.size != count:
        raise ImageError(
            f"{path}: {count} keypoints, {len(descriptors)} descriptors, {scores.size} scores"
        )
    lengths = np.linalg.norm(descriptors, axis=1, keepdims=True)
    # COLMAP pixels: the first pixel's centre is at (0.5, 0.5).
    positions = keypoints[:, :2] - first_pixel + 0.5
    return LocalFeatures(
        keypoints=positions.astype(np.float32),
        scales=(keypoints[:, 2] if keypoints.shape[1] == 3 else np.ones(count)).astype(np.float32),
        scores=scores.reshape(-1).astype(np.float32),
        descriptors=(descriptors / np.maximum(lengths, 1e-12)).astype(np.float32),
        image_size=image_size,
    )


def _check_inside(features: LocalFeatures, path: Path) -> None:
    """Raises ImageError if keypoints lie outside of the picture by more than a margin: they are of
    another photo, or of this one at another size."""
    size = np.asarray(features.image_size, np.float32)
    margin = OUTSIDE * size
    outside = (features.keypoints < -margin) | (features.keypoints > size + margin)
    if outside.any():
        x, y = features.keypoints[outside.any(axis=1)][0].tolist()
        width, height = features.image_size
        raise ImageError(
            f"{path}: a keypoint at ({x:.6g}, {y:.6g}) lies outside of the picture of {width} x "
            f"{height} pixels; are these features of another size of it?"
        )


def _most_common(files: Sequence[Path]) -> int | None:
    found: list[int] = []
    for path in files:
        with contextlib.suppress(ImageError):
            features = read_precomputed(path, (1, 1))
            found += [features.descriptors.shape[1]] if len(features) else []
        if len(found) == _JUDGES:
            break
    return max(sorted(set(found)), key=found.count, default=None)


def _array(arrays: dict[str, Any], name: str, path: Path) -> Any:
    if name not in arrays:
        raise ImageError(f"{path}: no array {name!r}; found {', '.join(arrays) or 'none'}")
    if arrays[name].dtype.kind in "fiu":
        values = arrays[name].astype(np.float64)
        if (np.abs(values) <= np.finfo(np.float32).max).all():
            return values
    raise ImageError(f"{path}: {name} holds something else than finite numbers")
