"""Merging of models that share photos."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reconstruct import colmap
from reconstruct.atomic import atomic_path
from reconstruct.errors import EstimationError, UsageError
from reconstruct.fingerprints import fingerprint, tree_hash
from reconstruct.stages import Summary
from reconstruct.stages.outcome import Run
from reconstruct.storage.summary import stage_entry, write_summary
from reconstruct.workspace import Workspace

logger = logging.getLogger("reconstruct")

EDGE_PX = 1600
"""Longest edge of photos for which COLMAP's limits in pixels are meant; for larger photos they are
scaled up."""


def join(
    models: Sequence[Path | str],
    output: Path | str,
    *,
    min_photos: int = 3,
    refine_intrinsics: bool = True,
    loss_px: float = 1.0,
) -> Run:
    """Merge models that share photos, and adjust the whole.

    Models are aligned by the poses of the photos that they share (by name), starting from the
    largest; then all poses and points are adjusted together. The result has the coordinate frame
    and the scale of the largest.

    Args:
        models: COLMAP models, or output folders, which stand for all of their models (``sparse``,
            ``sparse_1`` ...).
        output: Output folder for the joined model, ``sparse``.
        min_photos: Photos whose poses must agree for two models to be joined.
        refine_intrinsics: Adjust focal lengths and distortion too.
        loss_px: Scale of the Cauchy loss of the adjustment, in pixels of a photo of at most
            1600 pixels, in proportion for larger ones.

    Returns:
        The run; ``summary.figures["join"]`` tells for each model how many photos support it.

    Raises:
        UsageError: There are fewer than two models, or ``output`` is the folder of a run.
        EstimationError: A model shares too few photos with the others, or they do not agree.
    """
    if min_photos < 2:
        raise UsageError(f"min_photos: expected at least 2, got {min_photos}")
    folders = [folder for path in models for folder in _models(Path(path))]
    if len(folders) < 2:
        raise UsageError(
            f"join: expected two models or more, found {len(folders)}; give further folders"
        )
    workspace = Workspace(output)
    if workspace.config.is_file():
        raise UsageError(f"{output}: holds a run, whose model would be lost; give a new folder")
    with workspace.lock():
        parts = [_Part(str(folder), colmap.read_model(folder)) for folder in folders]
        joined, support = _join_all(parts, min_photos)
        _adjust(joined, refine_intrinsics, loss_px)
        figures: dict[str, Any] = {"models": len(parts), **colmap.model_summary(joined)}
        figures |= support
        _write(workspace, joined, fingerprint("joined", [tree_hash(f) for f in folders]))
        write_summary(workspace.summary, {"join": stage_entry(0.0, figures)}, {})
    return Run(workspace.root, Summary(figures={"join": figures}))


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    name: str
    model: colmap.Reconstruction


def _models(path: Path) -> list[Path]:
    if (path / "sparse").is_dir():
        return Workspace(path).models()
    colmap.check_model(path)
    return [path]


def _join_all(
    parts: list[_Part], min_photos: int
) -> tuple[colmap.Reconstruction, dict[str, list[str]]]:
    """The largest model with all others joined to it, those that share most photos first."""
    waiting = sorted(parts, key=lambda part: -part.model.num_reg_images())
    joined = waiting.pop(0).model
    support: dict[str, list[str]] = {"agreeing": [], "not_agreeing": []}
    while waiting:
        overlaps = [colmap.find_overlap(part.model, joined) for part in waiting]
        best = int(np.argmax([len(overlap.agreeing) for overlap in overlaps]))
        part, overlap = waiting.pop(best), overlaps[best]
        shared, agreeing = len(overlap.shared), len(overlap.agreeing)
        if overlap.similarity is None or agreeing < min_photos or 2 * agreeing < shared:
            raise EstimationError(
                f"{part.name}: shares {shared} photos with the others, of which {agreeing} agree "
                f"on how it lies; {max(min_photos, -(-shared // 2))} are needed. Map more photos "
                "in both, or all photos in one run"
            )
        logger.info("join: %s by %d of %d shared photos", part.name, agreeing, shared)
        support["agreeing"] += overlap.agreeing
        support["not_agreeing"] += sorted(set(overlap.shared) - set(overlap.agreeing))
        joined = colmap.merge_models(part.model, joined, overlap.similarity)
    return joined, {name: sorted(set(found)) for name, found in support.items()}


def _adjust(model: colmap.Reconstruction, refine_intrinsics: bool, loss_px: float) -> None:
    edges = [max(c.width, c.height) for c in colmap.model_cameras(model).values()]
    scale = max(1.0, float(np.median(edges)) / EDGE_PX)
    constant = set() if refine_intrinsics else set(model.cameras)
    colmap.adjust_robustly(model, loss_px, constant, threads=-1, pixel_scale=scale)
    for name in colmap.drop_unfounded_images(model):
        logger.warning("join: %s has too few points to be sure of, and is left out", name)


def _write(workspace: Workspace, model: colmap.Reconstruction, stamp: str) -> None:
    workspace.set_stamp(workspace.sparse, None)
    with atomic_path(workspace.sparse) as temporary:
        colmap.write_model(model, temporary)
    workspace.set_stamp(workspace.sparse, stamp)
    workspace.forget_models(1)
