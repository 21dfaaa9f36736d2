"""Format ``panorama``: 360-degree photos, cut into perspective views that are a rig."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from reconstruct import colmap
from reconstruct.config import NotIdentity, Section, tuple_from_list
from reconstruct.datasets import Dataset
from reconstruct.datasets.cameras import CamerasConfig
from reconstruct.datasets.cutting import Cutter
from reconstruct.datasets.folder import list_images
from reconstruct.datasets.gps import GpsConfig, load_gps
from reconstruct.datasets.sphere import SphereView
from reconstruct.errors import ImageError, UsageError
from reconstruct.images import image_size

STRAIGHT_DEG = 90.0
"""The pitch of a view to the zenith, or the ground if negative: one, whatever its yaw."""
LEAST_PX = 64


class ViewsConfig(Section):
    """The perspective views of a panorama."""

    around: int = Field(6, ge=2, le=36)
    """Views in a ring, at equal angles."""
    pitches_deg: Annotated[tuple[float, ...], BeforeValidator(tuple_from_list)] = (0.0,)
    """How far up each ring looks; 90 and -90 are one view each, to the zenith and to the ground."""
    field_of_view_deg: float = Field(90.0, ge=30, le=130)
    """Of a view, from edge to edge."""
    size: int | None = Field(None, ge=LEAST_PX, le=8192)
    """Pixels of an edge of a view. null: as fine as the widest panorama at its horizon."""

    @model_validator(mode="after")
    def _check(self) -> ViewsConfig:
        pitches = self.pitches_deg
        if not all(abs(pitch) <= STRAIGHT_DEG for pitch in pitches):
            raise ValueError(f"`pitches_deg` are between -90 and 90, got {list(pitches)}")
        if len(set(map(round, pitches))) < len(pitches) or len(self.views(LEAST_PX)) < 2:
            raise ValueError("`pitches_deg` are at least a degree apart, and make two views")
        return self

    def views(self, width: int) -> tuple[SphereView, ...]:
        """The views of panoramas that are ``width`` pixels wide, those of the first ring first."""
        half = float(np.tan(np.radians(self.field_of_view_deg / 2)))
        size = self.size or max(LEAST_PX, round(width / np.pi * half))
        return tuple(
            SphereView(
                yaw_deg=360.0 * k / self.around,
                pitch_deg=pitch,
                field_of_view_deg=self.field_of_view_deg,
                size=size,
            )
            for pitch in self.pitches_deg
            for k in range(1 if abs(pitch) == STRAIGHT_DEG else self.around)
        )


class PanoramaConfig(CamerasConfig):
    """360-degree photos: equirectangular pictures of the whole sphere."""

    format: Literal["panorama"]
    images: Annotated[str, NotIdentity] = Field(min_length=1)
    """The folder, subfolders included; the pictures are twice as wide as high."""
    views: ViewsConfig = ViewsConfig.model_validate({})
    """The perspective views into which they are cut."""
    masks: Annotated[str | None, NotIdentity] = None
    """Folder with NAME.png (so photo.jpg.png) for panoramas with masks: 0 = no keypoints there, as
    of who holds the camera."""
    gps: GpsConfig | None = None
    """Where they were taken: the model is aligned with it, in metres. null: not used. ``{}``: from
    their EXIF data."""

    @model_validator(mode="after")
    def _check_cameras(self) -> PanoramaConfig:
        if self.cameras is not None:
            raise ValueError("the intrinsics of the views are known: leave `cameras` out")
        return self

    def load(self, scratch: Path) -> Dataset:
        """The views, cut if they are not there. Raises UsageError for missing folders, DataError if
        no panorama can be used."""
        root = Path(self.images)
        panoramas, skipped = list_images(root)
        masks = Path(self.masks) if self.masks else None
        if masks is not None and not masks.is_dir():
            raise UsageError(f"{masks}: no such folder (dataset.masks)")
        views = self.views.views(max(_width(root / name) for name in panoramas))
        cutter = Cutter(root, masks, scratch, views)
        originals, unused = cutter.cut_all(panoramas)
        names = tuple(sorted(originals))
        return Dataset(
            root=cutter.root,
            names=names,
            skipped=skipped | unused,
            masks=cutter.masks,
            gps=None if self.gps is None else load_gps(self.gps, cutter.root, names, originals),
            rigs=colmap.Rigs(cutter.write_rigs()),
            originals=originals,
        )


def _width(path: Path) -> int:
    try:
        return image_size(path)[0]
    except ImageError:
        return 0  # to cut it will say why
