"""From a public layout of photos to a `Dataset`: images, cameras, ground truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from reconstruct.datasets.rgbd import RgbdImages
from reconstruct.types import Query

if TYPE_CHECKING:
    from reconstruct.colmap import Rigs
    from reconstruct.datasets.gps import GpsPositions


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The photos of a run.

    Attributes:
        root: Folder that image names are relative to.
        names: Sorted names, with ``/`` between folders.
        skipped: File -> why it is not among the names.
        masks: Folder with ``NAME.png`` (0 = no keypoints there), or None.
        alpha_masks: Whether transparent pixels of photos without such a file are masked.
        cameras: COLMAP model with known intrinsics, or None.
        reference: COLMAP model with ground-truth poses, or None.
        poses: COLMAP model with the poses from which the map is triangulated, or None.
        queries: Photos to localize, sorted; they are among ``names``, and are not mapped.
        rgbd: 3D points for the pixels of all other photos, which make an RGB-D map; or None.
        gps: Where photos were taken, in metres; or None.
        originals: Photos that were converted -> their names before; others have the same.
        rigs: Which cameras were mounted together; or None.
    """

    root: Path
    names: tuple[str, ...]
    skipped: dict[str, str] = field(default_factory=dict)
    masks: Path | None = None
    alpha_masks: bool = False
    cameras: Path | None = None
    reference: Path | None = None
    poses: Path | None = None
    queries: tuple[Query, ...] = ()
    rgbd: RgbdImages | None = None
    gps: GpsPositions | None = None
    rigs: Rigs | None = None
    originals: dict[str, str] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """The file of an image."""
        return self.root / name

    def original(self, name: str) -> str:
        """The name of a photo as its owner knows it."""
        return self.originals.get(name, name)

    @property
    def query_names(self) -> frozenset[str]:
        """Names of the photos to localize."""
        return frozenset(query.name for query in self.queries)
