"""Pairs of photos with depth: the common part of RGB-D folders, COLMAP models with depth maps and
MegaDepth."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import Field

from reconstruct.geometry import Float64, apply_homography
from reconstruct.images import read_image
from reconstruct.training.data.crops import CropsConfig, crop_from_photo, draw_zoom, two_view_group
from reconstruct.training.data.groups import Group, Shape
from reconstruct.training.data.layout import Mask, correspondences
from reconstruct.training.data.reprojection import DepthView, reproject

GRID = 24
"""Points per edge of the grid that is reprojected to estimate the overlap of two photos."""


class DepthPairsConfig(CropsConfig):
    """Crops of two photos of known depth and pose."""

    overlap: tuple[float, float] = Field((0.3, 0.95), strict=False)
    """Range of the share of the first photo that the second has to see: with less there is nothing
    to learn, with more it is the same photo again."""
    depth_tolerance: float = Field(0.05, gt=0)
    """Largest difference between the depths of corresponding points, relative to the depth."""


class Views(Protocol):
    """Photos with pose and depth, and a way to pick two of them."""

    def pick(self, rng: np.random.Generator) -> tuple[int, int]:
        """Two different views."""

    def photo(self, index: int) -> Path:
        """The file of a view's photo."""

    def view(self, index: int) -> DepthView:
        """Camera and depth of a view, in pixels of its photo."""


def draw_pair(
    views: Views,
    config: DepthPairsConfig,
    shape: Shape,
    rng: np.random.Generator,
    *,
    relative: bool = True,
) -> Group | None:
    """A group of two random views.

    Args:
        views: The photos.
        config: Settings.
        shape: What all groups of the run have in common.
        rng: Source of all random choices.
        relative: Whether ``config.depth_tolerance`` is a share of the depth, see `reproject`.

    Returns:
        The group; None if the overlap of the two views is not in the range of ``config``.
    """
    a, b = views.pick(rng)
    first, second = views.view(a), views.view(b)
    grid = _grid(first.depth.shape)
    target, seen = reproject(grid, first, second, config.depth_tolerance, relative=relative)
    if not config.overlap[0] <= seen.mean() <= config.overlap[1]:
        return None
    chosen = int(rng.choice(np.flatnonzero(seen)))
    zoom = draw_zoom(config, rng)
    crops = tuple(
        crop_from_photo(config, centre, zoom, shape.crop_px, rng)
        for centre in (grid[chosen], target[chosen])
    )

    def mapping(positions: Float64) -> tuple[Float64, Mask]:
        in_first = apply_homography(np.linalg.inv(crops[0]), positions)
        in_second, both = reproject(
            in_first, first, second, config.depth_tolerance, relative=relative
        )
        return apply_homography(crops[1], in_second), both

    cells = correspondences(shape.layout, shape.crop_px, mapping)
    if len(cells) < shape.min_correspondences:
        return None
    photos = (read_image(views.photo(a)), read_image(views.photo(b)))
    return two_view_group(photos, (crops[0], crops[1]), cells, shape, config, rng)


def _grid(shape: tuple[Any, ...]) -> Float64:
    height, width = shape
    x, y = np.meshgrid(*(np.linspace(0, n, GRID + 2)[1:-1] for n in (width, height)))
    return np.column_stack([x.ravel(), y.ravel()])
