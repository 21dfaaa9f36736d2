"""Format ``folder``: a folder of one's own photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from reconstruct import colmap
from reconstruct.config import NotIdentity
from reconstruct.datasets import Dataset
from reconstruct.datasets.cameras import CamerasConfig
from reconstruct.datasets.conversion import (
    CONVERTED,
    convert_photos,
    is_foreign,
    without_twins,
)
from reconstruct.datasets.folder import list_images
from reconstruct.datasets.gps import GpsConfig, GpsPositions, load_gps
from reconstruct.datasets.queries import check_size, find_queries
from reconstruct.errors import UsageError
from reconstruct.types import Query


class FolderConfig(CamerasConfig):
    """A folder of photos."""

    format: Literal["folder"]
    images: Annotated[str, NotIdentity] = Field(min_length=1)
    """The folder, subfolders included; names are relative to it."""
    masks: Annotated[str | None, NotIdentity] = None
    """Folder with NAME.png (so photo.jpg.png) for images with masks: 0 = no keypoints there."""
    alpha_masks: bool = False
    """Drop keypoints where a PNG or TIFF is fully transparent (alpha 0); a file in ``masks`` takes
    precedence."""
    queries: str | None = None
    """Photos to localize, which are not mapped: a folder inside of ``images``, or a text file with
    ``name camera_model width height params...`` a line (a name alone: camera from EXIF)."""

    gps: GpsConfig | None = None
    """Where photos were taken: the model is aligned with it, in metres. null: not used. ``{}``:
    from the photos' EXIF data."""
    rigs: Annotated[str | None, NotIdentity] = None
    """Cameras that are mounted together: COLMAP's rig configuration, a JSON file. Sensor poses that
    it gives are kept; others are estimated. null: no rigs."""

    def load(self, scratch: Path) -> Dataset:
        """The photos. Raises UsageError for missing folders, DataError if there is no image."""
        root = Path(self.images)
        names, skipped = list_images(root, CONVERTED)
        originals: dict[str, str] = {}
        if any(map(is_foreign, names)):
            names = tuple(without_twins(names))
        if any(map(is_foreign, names)):
            converted = convert_photos(root, names, scratch / "images")
            root, names, originals = converted.root, converted.names, converted.originals
            skipped = skipped | converted.skipped
        masks = Path(self.masks) if self.masks else None
        if masks is not None and not masks.is_dir():
            raise UsageError(f"{masks}: no such folder (dataset.masks)")
        queries, missing = self._find_queries(names, originals)
        for query in queries:
            check_size(root / query.name, query.intrinsics)
        return Dataset(
            root=root,
            names=names,
            skipped=skipped | missing,
            masks=masks,
            alpha_masks=self.alpha_masks,
            queries=queries,
            rigs=self._load_rigs(names),
            gps=self._load_gps(root, names, originals),
            originals=originals,
        )

    def _find_queries(
        self, names: Sequence[str], originals: Mapping[str, str]
    ) -> tuple[tuple[Query, ...], dict[str, str]]:
        if self.queries is None:
            return (), {}
        converted = {original: name for name, original in originals.items()}
        known = [originals.get(name, name) for name in names]
        queries, missing = find_queries(Path(self.images), known, self.queries)
        renamed = (replace(query, name=converted.get(query.name, query.name)) for query in queries)
        return tuple(sorted(renamed, key=lambda query: query.name)), missing

    def _load_gps(
        self, root: Path, names: Sequence[str], originals: Mapping[str, str]
    ) -> GpsPositions | None:
        return None if self.gps is None else load_gps(self.gps, root, names, originals)

    def _load_rigs(self, names: Sequence[str]) -> colmap.Rigs | None:
        if self.rigs is None:
            return None
        rigs = colmap.Rigs(Path(self.rigs))
        rigs.check(names)
        return rigs
