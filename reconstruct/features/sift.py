"""COLMAP's SIFT as an extractor: the baseline that any run can be compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from reconstruct import colmap
from reconstruct.config import Section
from reconstruct.features.resizing import ResizedImage
from reconstruct.geometry import fit_size, rescale_points
from reconstruct.images import to_grey
from reconstruct.types import ImageArray, LocalFeatures


class SiftConfig(Section):
    """Section ``extract.local`` with ``name: sift``."""

    name: Literal["sift"] = "sift"
    max_keypoints: int = Field(8192, ge=1)
    """At most this many positions; one with several orientations counts once."""
    max_edge: int | None = Field(1600, ge=16)
    """Longest edge in pixels to which larger images are shrunk first; null: as stored."""
    upright: bool = False
    """One orientation, along gravity: better where the camera is never rolled."""
    affine_shape: bool = False
    """Adapt each keypoint to an ellipse: better under wide baselines, slower."""


class Sift:
    """RootSIFT. ``scales`` are in original pixels; so are ``scores``, as COLMAP gives no
    response."""

    dim = 128

    def __init__(self, config: SiftConfig, *, device: str = "auto") -> None:
        self.config = config
        self._sift: colmap.SiftExtractor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"config": self.config, "_sift": None}  # COLMAP's object cannot be pickled

    def identity(self) -> dict[str, Any]:
        """The settings: nothing else decides the result."""
        return self.config.identity()

    def __call__(self, image: ImageArray) -> LocalFeatures:
        """Features of one (H, W, 3) uint8 RGB image."""
        return self.extract([self.prepare(image)])[0]

    def prepare(self, image: ImageArray) -> ResizedImage:
        """The grey image, shrunk to ``max_edge``."""
        original = image.shape[1], image.shape[0]
        grey = to_grey(image)
        size = fit_size(original, self.config.max_edge)
        if size != original:
            # Antialiased bicubic: more observations survive mapping than with area averaging.
            grey = np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC))
        return ResizedImage(np.ascontiguousarray(grey), original)

    def extract(self, batch: Sequence[ResizedImage]) -> list[LocalFeatures]:
        """Features of prepared images."""
        return [self._extract(item) for item in batch]

    def _extract(self, item: ResizedImage) -> LocalFeatures:
        if self._sift is None:
            self._sift = colmap.SiftExtractor(
                max_keypoints=self.config.max_keypoints,
                upright=self.config.upright,
                affine_shape=self.config.affine_shape,
            )
        keypoints, descriptors = self._sift(item.pixels)
        scales = keypoints[:, 2] * item.enlargement
        positions = rescale_points(keypoints[:, :2], item.size, item.original_size)
        return LocalFeatures(
            keypoints=positions.astype(np.float32),
            scales=scales.astype(np.float32),
            scores=scales.astype(np.float32),
            descriptors=descriptors,
            image_size=item.original_size,
        )
