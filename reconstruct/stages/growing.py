"""Where mapping starts from: nothing, a finished model, or the snapshot of a killed run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconstruct import colmap
from reconstruct.atomic import remove
from reconstruct.fingerprints import fingerprint, tree_hash
from reconstruct.workspace import Workspace

logger = logging.getLogger(__name__)

PREVIOUS = "previous"
"""The setting for the model that the output folder holds already."""

MIN_KEPT = 0.5
"""Share of a model's observations that must be on keypoints of the database for its points to be
kept; with fewer, it was made from other keypoints and is triangulated again."""


@dataclass(frozen=True, slots=True, eq=False)
class Growth:
    """A model that mapping starts from.

    Attributes:
        source: The model as it was.
        placed: The same with the ids and keypoints of the database.
        absent: Its images that the database lacks, left out of ``placed``.
        fixed: Whether its poses and intrinsics stay as they are.
    """

    source: colmap.Reconstruction
    placed: colmap.Reconstruction
    absent: list[str]
    fixed: bool

    @property
    def constant(self) -> list[str]:
        """Names of the images whose poses stay."""
        return list(colmap.model_poses(self.placed)) if self.fixed else []

    @property
    def constant_cameras(self) -> set[int]:
        """Ids of the cameras whose intrinsics stay."""
        return set(self.placed.cameras) if self.fixed else set()

    def figures(self, model: colmap.Reconstruction) -> dict[str, Any]:
        """How many images were there, came, and went."""
        before, after = colmap.model_poses(self.source), colmap.model_poses(model)
        figures: dict[str, Any] = {
            "grown_from_images": len(before),
            "new_images": len(set(after) - set(before)),
        }
        if self.absent:
            figures["images_without_photo"] = self.absent
        return figures


def start_folder(start: str | None, workspace: Workspace) -> Path | None:
    """The model that setting ``map.start`` means, None if there is none yet.

    Raises UsageError if a named one does not exist.
    """
    if start is None:
        return None
    if start == PREVIOUS:
        return workspace.sparse if workspace.sparse.is_dir() else None
    folder = colmap.model_folder(Path(start))
    colmap.check_model(folder)
    return folder


def read_growth(
    folder: Path,
    database: Path,
    fixed: bool,
    *,
    images: Path,
    scratch: Path,
    mapper: colmap.MapperOptions,
) -> Growth:
    """The model in a folder, with the ids and keypoints of the database, to grow from.

    Args:
        folder: COLMAP model.
        database: COLMAP database of all photos.
        fixed: Whether its poses and intrinsics stay.
        images: Folder to which the image names are relative.
        scratch: Folder for temporary files.
        mapper: For `colmap.triangulate_again`, where the model was made of other keypoints.

    Raises:
        EstimationError: The database has fewer than two of its images.
        UsageError: The cameras do not agree.
    """
    source = colmap.read_model(folder)
    found = colmap.place_on_database(source, database)
    placed = found.model
    if found.absent:
        logger.warning("map: %d images of %s have no photo here", len(found.absent), folder)
    if found.kept < MIN_KEPT:
        logger.info("map: the model to start from has other keypoints; it is triangulated anew")
        placed = colmap.triangulate_again(placed, database, images, scratch, mapper)
    return Growth(source, placed, found.absent, fixed)


def open_snapshots(
    workspace: Workspace, made_from: list[Any], images: int, every: int | None
) -> colmap.Snapshots:
    """Snapshots of an interrupted run, if they belong to the same mapping; else an empty folder for
    new ones.

    Args:
        workspace: The output folder.
        made_from: JSON-able; all that decides the models.
        images: How many images there are to map.
        every: Images between snapshots; None: a twentieth of all, at least five.
    """
    folder, note = workspace.snapshots, workspace.snapshots / "fingerprint.txt"
    wanted = fingerprint("snapshots", made_from)
    if not note.is_file() or note.read_text(encoding="utf-8") != wanted:
        remove(folder)
        folder.mkdir(parents=True)
        note.write_text(wanted, encoding="utf-8")
    found = colmap.Snapshots(folder, every or max(5, images // 20))
    if (last := found.last()) is not None:
        known = colmap.read_model(last).num_reg_images()
        logger.info("map: goes on from a snapshot of %d images", known)
    return found


def start_identity(start: str | None, folder: Path | None, workspace: Workspace) -> str | None:
    """What a fingerprint says of the start: its content, but for the output folder's own model.

    That one is replaced by the result, which would else be out of date at once.
    """
    if start is None:
        return None
    if folder is None or folder.resolve() == workspace.sparse.resolve():
        return PREVIOUS
    return tree_hash(folder)
