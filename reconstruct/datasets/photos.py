"""Format ``folder``: a folder of one's own photos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from reconstruct import colmap
from reconstruct.config import NotIdentity
from reconstruct.datasets import Dataset
from reconstruct.datasets.cameras import CamerasConfig
from reconstruct.datasets.folder import list_images
from reconstruct.datasets.gps import GpsConfig, load_gps
from reconstruct.datasets.queries import check_size, find_queries
from reconstruct.errors import UsageError


class FolderConfig(CamerasConfig):
    """A folder of photos."""

    format: Literal["folder"]
    images: Annotated[str, NotIdentity] = Field(min_length=1)
    """The folder, subfolders included; names are relative to it."""
    masks: Annotated[str | None, NotIdentity] = None
    """Folder with NAME.png (so photo.jpg.png) for images with masks: 0 = no keypoints there."""
    queries: str | None = None
    """Photos to localize, which are not mapped: a folder inside of ``images``, or a text file with
    ``name camera_model width height params...`` a line (a name alone: camera from EXIF)."""

    gps: GpsConfig | None = None
    """Where photos were taken: the model is aligned with it, in metres. null: not used. ``{}``:
    from the photos' EXIF data."""
    rigs: Annotated[str | None, NotIdentity] = None
    """Cameras that are mounted together: COLMAP's rig configuration, a JSON file. Poses of cameras
    in their rig that it gives stay as they are; others are estimated. null: none are."""

    def load(self, scratch: Path) -> Dataset:
        """The photos. Raises UsageError for missing folders, DataError if there is no image."""
        names, skipped = list_images(Path(self.images))
        masks = Path(self.masks) if self.masks else None
        if masks is not None and not masks.is_dir():
            raise UsageError(f"{masks}: no such folder (dataset.masks)")
        root = Path(self.images)
        queries, missing = find_queries(root, names, self.queries) if self.queries else ((), {})
        for query in queries:
            check_size(root / query.name, query.intrinsics)
        return Dataset(
            root=root,
            names=names,
            skipped=skipped | missing,
            masks=masks,
            queries=queries,
            rigs=self._load_rigs(names),
            gps=load_gps(self.gps, root, names) if self.gps is not None else None,
        )

    def _load_rigs(self, names: Sequence[str]) -> colmap.Rigs | None:
        if self.rigs is None:
            return None
        rigs = colmap.Rigs(Path(self.rigs))
        rigs.check(names)
        return rigs
