"""Photos warped by random homographies: any folder of photos can be used for training.

A group is one area of a photo, seen ``variants`` times through different homographies and under
different light; every two of them are a pair with exact correspondences.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from pydantic import Field

from reconstruct.config import NotIdentity, Section
from reconstruct.datasets.folder import list_images
from reconstruct.geometry import Float64, apply_homography
from reconstruct.training.data.groups import CropPair, Group, Shape
from reconstruct.training.data.layout import Mask, correspondences
from reconstruct.training.data.photometric import PhotometricConfig, vary
from reconstruct.training.data.photos import Photos
from reconstruct.types import ImageArray

SUPERSAMPLING = 2
"""Crops are warped at twice their size and averaged, so that shrinking leaves no aliasing."""


class WarpsConfig(Section):
    """How a photo is warped, and under what light it is put."""

    max_edge: int | None = Field(1024, ge=64)
    """Larger photos are shrunk to this edge first."""
    variants: int = Field(4, ge=2, le=8)
    """Crops of one area; n of them make n (n - 1) / 2 pairs."""
    zoom: tuple[float, float] = Field((0.7, 1.5), strict=False)
    """Range of crop pixels per photo pixel, drawn once for all crops of an area."""
    max_scale: float = Field(2.0, ge=1)
    """Largest ratio of scales between two crops."""
    rotation_deg: float = Field(15.0, ge=0)
    """Standard deviation of the rotation; one crop in ten is rotated by any angle up to
    ``any_rotation_deg``."""
    any_rotation_deg: float = Field(90.0, ge=0, le=180)
    """Largest rotation of one crop in ten."""
    perspective: float = Field(0.5, ge=0, lt=1)
    """Largest relative change of depth from the middle of the crop to its edges."""
    stretch: float = Field(0.25, ge=0)
    """Largest |log| of an affine stretch."""
    shift: float = Field(0.15, ge=0)
    """Largest shift of a crop from the centre of the area, relative to the crop."""
    photometric: PhotometricConfig = PhotometricConfig()


class HomographiesConfig(WarpsConfig):
    """Photos warped by random homographies."""

    format: Literal["homographies"]
    images: Annotated[str, NotIdentity]
    """Folder of photos, subfolders included."""


class Homographies:
    """See `reconstruct.training.data.groups.TrainingSet`."""

    def __init__(self, config: HomographiesConfig, root: Path) -> None:
        folder = root / config.images
        names, _ = list_images(folder)
        self.config = config
        self.photos = Photos([folder / name for name in names], config.max_edge)

    def identity(self) -> list[Any]:
        """Settings, and the photos by content."""
        return [self.config.identity(), self.photos.identity()]

    def draw(self, shape: Shape, rng: np.random.Generator) -> Group | None:
        """A group of crops of one area of one photo."""
        photo = self.photos.read(int(rng.integers(len(self.photos))))
        return warped_group([photo] * self.config.variants, self.config, shape, rng)


def warped_group(
    photos: Sequence[ImageArray], config: WarpsConfig, shape: Shape, rng: np.random.Generator
) -> Group:
    """Crops of one area, each from its own of ``photos``, which agree pixel by pixel."""
    size = (photos[0].shape[1], photos[0].shape[0])
    zoom = float(np.exp(rng.uniform(*np.log(config.zoom))))
    centre = _place(size, shape.crop_px / zoom, rng)
    homographies = [random_homography(config, shape.crop_px, zoom, centre, rng) for _ in photos]
    images = [
        vary(warp(photo, homography, shape.crop_px), config.photometric, rng)
        for photo, homography in zip(photos, homographies, strict=True)
    ]
    pairs = [
        CropPair(first=i, second=j, cells=_cells(shape, homographies[i], homographies[j], size))
        for i, j in combinations(range(len(photos)), 2)
    ]
    return Group(images=np.stack(images), pairs=shape.usable(pairs), complete=True)


def random_homography(
    config: WarpsConfig,
    crop_px: int,
    zoom: float,
    centre: Float64,
    rng: np.random.Generator,
) -> Float64:
    """A random homography that maps a point of the photo near to the middle of the crop.

    Args:
        config: Settings.
        crop_px: Edge of the crop.
        zoom: Crop pixels per photo pixel.
        centre: (2,) point in COLMAP pixels of the photo.
        rng: Source of all random choices.

    Returns:
        (3, 3) crop_from_photo.
    """
    scale = zoom * np.exp(0.5 * np.log(config.max_scale) * rng.uniform(-1, 1))
    angle = np.radians(rng.normal(0.0, config.rotation_deg))
    if rng.random() < 0.1:
        angle = np.radians(rng.uniform(-1, 1) * config.any_rotation_deg)
    stretch = np.exp(rng.uniform(-0.5, 0.5) * config.stretch)
    axis = _rotation(rng.uniform(0, np.pi))
    affine = scale * _rotation(angle) @ axis @ np.diag([stretch, 1 / stretch]) @ axis.T
    matrix = np.eye(3)
    matrix[:2, :2] = affine
    matrix[:2, 2] = -affine @ centre
    tilt = np.eye(3)
    tilt[2, :2] = rng.uniform(-1, 1, 2) * config.perspective / crop_px
    shift = np.eye(3)
    shift[:2, 2] = crop_px * (0.5 + config.shift * rng.uniform(-1, 1, 2))
    return np.asarray(shift @ tilt @ matrix)


def warp(photo: ImageArray, crop_from_photo: Float64, crop_px: int) -> ImageArray:
    """Warp a photo into a crop; what is outside of the photo is mirrored.

    Args:
        photo: (H, W, 3) uint8 RGB.
        crop_from_photo: (3, 3), in COLMAP pixels.
        crop_px: Edge S of the crop.

    Returns:
        (S, S, 3) uint8 RGB.
    """
    enlarge = np.diag([SUPERSAMPLING, SUPERSAMPLING, 1.0])
    half = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5], [0.0, 0.0, 1.0]])
    # OpenCV counts from the first pixel's centre, COLMAP from its corner.
    matrix = np.linalg.inv(half) @ enlarge @ crop_from_photo @ half
    size = (SUPERSAMPLING * crop_px,) * 2
    large = cv2.warpPerspective(
        photo, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(cv2.resize(large, (crop_px, crop_px), interpolation=cv2.INTER_AREA), np.uint8)


def _place(size: tuple[int, int], extent: float, rng: np.random.Generator) -> Float64:
    """Random centre of an area of ``extent`` photo pixels: inside of the photo, if the area
    fits."""
    margin = np.minimum(0.5 * extent, 0.5 * np.array(size) - 1e-6)
    return np.asarray(rng.uniform(margin, np.array(size) - margin))


def _rotation(angle: float) -> Float64:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _cells(shape: Shape, first: Float64, second: Float64, size: tuple[int, int]) -> Any:
    def mapping(positions: Float64) -> tuple[Float64, Mask]:
        photo = apply_homography(np.linalg.inv(first), positions)
        with np.errstate(invalid="ignore"):
            inside = np.all((photo >= 0) & (photo <= size), axis=1)
        return apply_homography(second, photo), inside

    return correspondences(shape.layout, shape.crop_px, mapping)
