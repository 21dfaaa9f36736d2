"""Photos of cameras that do not move: what they see changes by night and weather, and not by view.

    ROOT/CAMERA/*.jpg

A group is one place, each of its crops from another photo of one camera and through a homography
of its own: real change of light with exact correspondences, up to what moves in the scene.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from reconstruct.config import NotIdentity
from reconstruct.datasets.folder import list_images
from reconstruct.errors import DataError, UsageError
from reconstruct.images import image_size
from reconstruct.training.data.groups import Group, Shape
from reconstruct.training.data.homographies import WarpsConfig, warped_group
from reconstruct.training.data.photos import Photos


class FixedViewsConfig(WarpsConfig):
    """Photos of cameras that do not move, warped by random homographies."""

    format: Literal["fixed_views"]
    images: Annotated[str, NotIdentity]
    """Folder with a folder of photos for each camera."""
    cameras: tuple[str, ...] = Field(min_length=1, strict=False)
    """These folders; each gives as many groups as any other."""


class FixedViews:
    """See `reconstruct.training.data.groups.TrainingSet`."""

    def __init__(self, config: FixedViewsConfig, root: Path) -> None:
        self.config = config
        self.cameras = [_photos(root / config.images / camera, config) for camera in config.cameras]

    def identity(self) -> list[Any]:
        """Settings, and the photos by content."""
        return [self.config.identity(), [photos.identity() for photos in self.cameras]]

    def draw(self, shape: Shape, rng: np.random.Generator) -> Group | None:
        """One place of one camera, in as many photos as there are crops."""
        photos = self.cameras[int(rng.integers(len(self.cameras)))]
        chosen = rng.choice(len(photos), self.config.variants, replace=False)
        return warped_group([photos.read(int(i)) for i in chosen], self.config, shape, rng)


def _photos(folder: Path, config: FixedViewsConfig) -> Photos:
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder (cameras)")
    names, _ = list_images(folder)
    if len(names) < config.variants:
        raise DataError(
            f"{folder}: {len(names)} photos; a group takes {config.variants} (variants)"
        )
    sizes = {name: image_size(folder / name) for name in names}
    if len(set(sizes.values())) > 1:
        raise DataError(f"{folder}: expected photos of one size, got {sorted(set(sizes.values()))}")
    return Photos([folder / name for name in names], config.max_edge)
