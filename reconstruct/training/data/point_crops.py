"""Square crops around a point that two photos observe, cut out of them without resampling.

This is how the authors of D2-Net train on MegaDepth (lib/dataset.py of their release): the crop
starts at a whole pixel, and one that would reach beyond the photo is moved inside.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from reconstruct.geometry import Float64
from reconstruct.training.data.crops import CropsConfig
from reconstruct.training.data.groups import CropPair, Group, Shape
from reconstruct.training.data.layout import Cells, Mask, correspondences
from reconstruct.training.data.photometric import vary
from reconstruct.types import ImageArray

Mapping = Callable[[Float64], tuple[Float64, Mask]]
"""(N, 2) positions in one photo -> (N, 2) positions in another, and (N,) which of them count."""


def crop_corner(centre: Float64, size: tuple[int, int], crop_px: int) -> tuple[int, int] | None:
    """(x, y) of the first pixel of the crop whose middle is nearest to ``centre``.

    centre: (2,) COLMAP pixels. size: (width, height) of the photo. None if the crop is larger.
    """
    if min(size) < crop_px:
        return None
    x, y = (
        min(max(int(at) - crop_px // 2, 0), edge - crop_px)
        for at, edge in zip(centre, size, strict=True)
    )
    return x, y


def point_cells(
    corners: tuple[tuple[int, int], tuple[int, int]], shape: Shape, mapping: Mapping
) -> Cells:
    """(M, 2) corresponding cells of two crops with these first pixels."""
    first, second = np.array(corners, np.float64)

    def between_crops(positions: Float64) -> tuple[Float64, Mask]:
        target, counts = mapping(positions + first)
        target = target - second
        # As if the depth map ended with the crop: within the centres of its outermost pixels.
        inside = ((target >= 0.5) & (target <= shape.crop_px - 0.5)).all(axis=1)
        return target, counts & inside

    return correspondences(shape.layout, shape.crop_px, between_crops)


def point_group(
    photos: tuple[ImageArray, ImageArray],
    corners: tuple[tuple[int, int], tuple[int, int]],
    cells: Cells,
    shape: Shape,
    config: CropsConfig,
    rng: np.random.Generator,
) -> Group:
    """The group of two crops under ``config.lights`` lights, ordered as by `two_view_group`."""
    plain = [
        photo[y : y + shape.crop_px, x : x + shape.crop_px]
        for photo, (x, y) in zip(photos, corners, strict=True)
    ]
    images = [vary(image, config.photometric, rng) for _ in range(config.lights) for image in plain]
    numbers = range(0, 2 * config.lights, 2)
    pairs = [CropPair(first=i, second=j + 1, cells=cells) for i in numbers for j in numbers]
    return Group(images=np.stack(images), pairs=shape.usable(pairs))
