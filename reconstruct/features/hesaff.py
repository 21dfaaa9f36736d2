"""Hessian-affine regions with RootSIFT: the classical extractor that D2-Net is compared with.

Detection and SIFT come from the library pyhesaff, which wraps the code of Perdoch, Chum and Matas
("Efficient Representation of Local Geometry for Large Scale Object Retrieval", CVPR 2009); RootSIFT
(Arandjelovic and Zisserman, CVPR 2012) is applied here, and orientations are found here: those of
the library (2.2.0) turn patches the wrong way round, so that its features of a turned photo do not
match. Without that library, COLMAP's affine SIFT is available as ``{name: sift, affine_shape:
true}``: regions of another detector (DoG).
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib import metadata
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from reconstruct.config import Section
from reconstruct.errors import MissingLibraryError
from reconstruct.features.patch_orientation import (
    dominant_orientations,
    sample_patches,
    turned,
)
from reconstruct.features.resizing import ResizedImage
from reconstruct.features.selection import keep_best
from reconstruct.geometry import rescale_points
from reconstruct.images import to_grey
from reconstruct.types import FloatArray, ImageArray, LocalFeatures


class HesaffConfig(Section):
    """Section ``extract.local`` with ``name: hesaff``."""

    name: Literal["hesaff"] = "hesaff"
    threshold: float = Field(255 / 256 * 14**0.5, gt=0)
    """Root of the least determinant of the Hessian, normalised by scale, of grey values 0 to 255.
    The default is `peakThreshold` 14 / 256 ** 2 of D2-Net's release (extract_hesaff.m), for grey
    values 0 to 1; the library's own is 16 / 3."""
    upright: bool = False
    """true: one orientation, along gravity; false: those of the gradients, as in that release. A
    region with several has several features."""
    max_keypoints: int | None = Field(None, ge=1)
    """Keep at most this many, the largest (the library gives no response)."""
    max_edge: int | None = Field(1600, ge=16)
    """Longest edge in pixels to which larger images are shrunk first; null: as stored."""


class Hesaff:
    """``scales`` are in original pixels; so are ``scores``, as the library gives no response."""

    dim = 128

    def __init__(self, config: HesaffConfig, *, device: str = "auto") -> None:
        self.config = config

    def identity(self) -> dict[str, Any]:
        """The settings and the library's version."""
        _library()
        return {**self.config.identity(), "pyhesaff": metadata.version("pyhesaff")}

    def __call__(self, image: ImageArray) -> LocalFeatures:
        """Features of one (H, W, 3) uint8 RGB image."""
        return self.extract([self.prepare(image)])[0]

    def prepare(self, image: ImageArray) -> ResizedImage:
        """The grey image, shrunk to ``max_edge``."""
        return ResizedImage.shrunk(to_grey(image), self.config.max_edge)

    def extract(self, batch: Sequence[ResizedImage]) -> list[LocalFeatures]:
        """Features of prepared images. Raises UsageError if the library is not installed."""
        return [self._extract(item) for item in batch]

    def _extract(self, item: ResizedImage) -> LocalFeatures:
        library = _library()
        detected = library.detect_feats_in_image(
            np.repeat(item.pixels[..., None], 3, axis=2), threshold=self.config.threshold
        )
        regions, sift = (np.asarray(values) for values in detected)
        if not self.config.upright and len(regions):
            index, patches = oriented_patches(item.pixels, regions)
            regions, sift = regions[index], library.extract_desc_from_patches(patches)
        # The library counts from the first pixel's centre, COLMAP from its corner.
        positions = rescale_points(regions[:, :2] + 0.5, item.size, item.original_size)
        # Ellipses are the unit circle under [[a, 0], [c, d]].
        scales = np.sqrt(np.abs(regions[:, 2] * regions[:, 4])) * item.enlargement
        features = LocalFeatures(
            keypoints=positions.astype(np.float32),
            scales=scales.astype(np.float32),
            scores=scales.astype(np.float32),
            descriptors=root_sift(sift),
            image_size=item.original_size,
        )
        return keep_best(features, max_keypoints=self.config.max_keypoints)


def oriented_patches(
    grey: ImageArray, regions: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """(K,) region and (K, 41, 41) patch of each orientation of the library's (N, 6) regions."""
    rows = np.asarray(regions, np.float64)
    shapes = np.zeros((len(rows), 2, 2))
    shapes[:, 0, 0], shapes[:, 1, 0], shapes[:, 1, 1] = rows[:, 2:5].T
    index, angle = dominant_orientations(sample_patches(grey, rows[:, :2], shapes))
    patches = sample_patches(grey, rows[index, :2], turned(shapes[index], angle))
    return index, np.rint(patches).astype(np.uint8)


def _library() -> Any:
    try:
        return importlib.import_module("pyhesaff")
    except ImportError as error:
        raise MissingLibraryError(
            "extractor hesaff needs the library pyhesaff: pip install 'reconstruct[hesaff]'; or "
            "use {name: sift, affine_shape: true}, COLMAP's affine SIFT"
        ) from error


def root_sift(sift: NDArray[Any]) -> FloatArray:
    """RootSIFT of (N, 128) non-negative SIFT vectors: unit vectors, the square roots of the
    L1-normalised ones."""
    values = np.asarray(sift, np.float64)
    shares = values / np.maximum(values.sum(axis=1, keepdims=True), 1e-12)
    return np.asarray(np.sqrt(shares), np.float32)
