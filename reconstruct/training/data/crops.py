"""A group from two photos of one scene: a crop of each around a shared point, each under several
random lightings, so that real changes of viewpoint and random changes of light come together.

The order of the images is a, b, a', b' ...; every crop of ``a`` is paired with every crop of ``b``.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from reconstruct.config import Section
from reconstruct.geometry import Float64
from reconstruct.training.data.groups import CropPair, Group, Shape
from reconstruct.training.data.homographies import warp
from reconstruct.training.data.layout import Cells
from reconstruct.training.data.photometric import PhotometricConfig, vary
from reconstruct.types import ImageArray


class CropsConfig(Section):
    """How crops of two photos of one scene are taken."""

    lights: int = Field(2, ge=1, le=4)
    """Crops of each photo, under independent photometric changes; n of them make n x n pairs."""
    zoom: Annotated[tuple[float, float], Field(strict=False)] = (1.0, 1.0)
    """Range of crop pixels per photo pixel, drawn once for both photos."""
    rotation_deg: float = Field(0.0, ge=0)
    """Standard deviation of the rotation of each crop."""
    photometric: PhotometricConfig = PhotometricConfig()


def crop_from_photo(
    config: CropsConfig, centre: Float64, zoom: float, crop_px: int, rng: np.random.Generator
) -> Float64:
    """A random similarity that maps a point of the photo to the middle of the crop.

    Args:
        config: Settings.
        centre: (2,) point in COLMAP pixels of the photo.
        zoom: Crop pixels per photo pixel.
        crop_px: Edge of the crop.
        rng: Source of the random rotation.

    Returns:
        (3, 3) crop_from_photo.
    """
    angle = np.radians(rng.normal(0.0, config.rotation_deg)) if config.rotation_deg else 0.0
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.eye(3)
    matrix[:2, :2] = turn
    matrix[:2, 2] = 0.5 * crop_px - turn @ centre
    return matrix


def draw_zoom(config: CropsConfig, rng: np.random.Generator) -> float:
    """A random number of crop pixels per photo pixel."""
    return float(np.exp(rng.uniform(*np.log(config.zoom))))


def two_view_group(
    photos: tuple[ImageArray, ImageArray],
    crops: tuple[Float64, Float64],
    cells: Cells,
    shape: Shape,
    config: CropsConfig,
    rng: np.random.Generator,
) -> Group:
    """The group of two crops with their corresponding cells.

    Args:
        photos: The two photos.
        crops: `crop_from_photo` of each.
        cells: Corresponding cells of the two crops.
        shape: What all groups of the run have in common.
        config: Settings.
        rng: Source of the photometric changes.
    """
    plain = [warp(photo, crop, shape.crop_px) for photo, crop in zip(photos, crops, strict=True)]
    images = [vary(image, config.photometric, rng) for _ in range(config.lights) for image in plain]
    numbers = range(0, 2 * config.lights, 2)
    pairs = [CropPair(first=i, second=j + 1, cells=cells) for i in numbers for j in numbers]
    return Group(images=np.stack(images), pairs=shape.usable(pairs))
