"""COLMAP's incremental mapping: from nothing, from a model, or from a snapshot of a killed run."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pycolmap

from reconstruct.atomic import remove
from reconstruct.colmap.models import Reconstruction, read_model
from reconstruct.errors import UsageError


@dataclass(frozen=True, slots=True)
class Snapshots:
    """A folder in which mapping saves the first model while it grows.

    COLMAP writes a snapshot before it calls back for an image, so a snapshot that is there at the
    callback is complete: it is then renamed, and replaces the one before.

    Attributes:
        folder: The folder.
        every: Images between two snapshots.
    """

    folder: Path
    every: int

    @property
    def _whole(self) -> Path:
        return self.folder / "model"

    @property
    def _written(self) -> Path:
        return self.folder / "written"

    def last(self) -> Path | None:
        """The last snapshot, None if there is none that can be read."""
        try:
            read_model(self._whole)
        except UsageError:
            return None
        return self._whole

    def prepare(self, options: pycolmap.IncrementalPipelineOptions) -> None:
        """Let COLMAP write snapshots."""
        remove(self._written)
        self._written.mkdir(parents=True)
        options.snapshot_path = self._written
        options.snapshot_frames_freq = self.every

    def keep(self) -> None:
        """Take the newest snapshot that COLMAP has written, if there is one."""
        for newest in sorted(self._written.iterdir())[-1:]:
            remove(self._whole)
            os.replace(newest, self._whole)


def map_incrementally(
    database: Path,
    images: Path,
    scratch: Path,
    options: pycolmap.IncrementalPipelineOptions,
    *,
    start: Path | None = None,
    snapshots: Snapshots | None = None,
    registered: Callable[[], None] = lambda: None,
) -> list[Reconstruction]:
    """Incremental mapping: the models in COLMAP's order, the one that goes on from ``start`` first.

    Args:
        database: COLMAP database with verified matches.
        images: Folder to which the image names are relative.
        scratch: Folder for temporary files.
        options: COLMAP's options.
        start: Folder of a model with the database's ids to start from; None: from nothing.
        snapshots: Where the first model is saved as it grows; one that is there replaces ``start``.
        registered: Called for every image that gets a pose, those of ``start`` too.
    """
    if snapshots is not None:
        start = snapshots.last() or start
        snapshots.prepare(options)
    first = 2 if start is None else pycolmap.Reconstruction(start).num_reg_images()
    models = 0

    def begun() -> None:
        nonlocal models
        models += 1
        for _ in range(first if models == 1 else 2):
            registered()

    def next_image() -> None:
        if snapshots is not None and models == 1:
            snapshots.keep()
        registered()

    found = pycolmap.incremental_mapping(
        database,
        images,
        scratch,
        options,
        input_path=start or "",
        initial_image_pair_callback=begun,
        next_image_callback=next_image,
    )
    return [found[key] for key in sorted(found)]
