"""Merging of models that share photos, or whose photos match."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from reconstruct import colmap
from reconstruct.atomic import atomic_path
from reconstruct.cross_matching import PhotoFolder, Photos, cross_matches, photo_folder
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


AGREES_PX = 8.0
"""A match holds models together if either point is seen so near to the other keypoint: twice
verify's limit, as neither model is exact."""


def join(
    models: Sequence[Path | str],
    output: Path | str,
    *,
    min_photos: int = 3,
    min_points: int = 30,
    neighbors: int = 20,
    refine_intrinsics: bool | None = None,
    loss_px: float = 1.0,
    device: str = "auto",
) -> Run:
    """Merge models that share photos, or whose photos match, and adjust the whole.

    Models are aligned by the poses of the photos that they share (by name), starting from the
    largest. One that shares too few is aligned by matches: its photos are matched with those of the
    others, for which both must come from output folders with features of one kind. Then all poses
    and points are adjusted together. The result has the coordinate frame and the scale of the
    largest.

    Args:
        models: COLMAP models, or output folders, which stand for all of their models (``sparse``,
            ``sparse_1`` ...).
        output: Output folder for the joined model, ``sparse``.
        min_photos: Photos whose poses must agree for two models to be joined; without shared
            photos, those of either that must have matches on which they agree.
        min_points: Without shared photos, 3D points of both models that matches must make one.
        neighbors: Photos that each is matched with, by global descriptors, where there are many.
        refine_intrinsics: Adjust focal lengths and distortion too; None: of cameras that no two
            models have to the last bit, as those that were given are.
        loss_px: Scale of the Cauchy loss of the adjustment, in pixels of a photo of at most
            1600 pixels, in proportion for larger ones.
        device: Of the matcher: auto, cpu, cuda or cuda:N.

    Returns:
        The run; ``summary.figures["join"]`` tells for each model how many photos support it.

    Raises:
        UsageError: There are fewer than two models, ``output`` is the folder of a run, or features
            are not of one kind.
        EstimationError: A model shares too few photos with the others and matches them too little,
            or what it shares does not agree.
    """
    if min_photos < 2:
        raise UsageError(f"min_photos: expected at least 2, got {min_photos}")
    folders = [(folder, Path(path)) for path in models for folder in _models(Path(path))]
    if len(folders) < 2:
        raise UsageError(
            f"join: expected two models or more, found {len(folders)}; give further folders"
        )
    workspace = Workspace(output)
    if workspace.config.is_file():
        raise UsageError(f"{output}: holds a run, whose model would be lost; give a new folder")
    needed = _Needed(photos=min_photos, points=min_points, neighbors=neighbors, device=device)
    with workspace.lock():
        parts = [_part(folder, path) for folder, path in folders]
        given = colmap.equal_cameras([part.model for part in parts])
        joined, support = _join_all(parts, needed)
        if refine_intrinsics is not None:
            given = set() if refine_intrinsics else colmap.camera_keys(joined)
        _adjust(joined, given, loss_px)
        figures: dict[str, Any] = {"models": len(parts), **colmap.model_summary(joined)}
        figures |= support
        stamp = fingerprint("joined", [tree_hash(folder) for folder, _ in folders])
        _write(workspace, joined, stamp)
        write_summary(workspace.summary, {"join": stage_entry(0.0, figures)}, {})
    return Run(workspace.root, Summary(figures={"join": figures}))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Needed:
    """What must support a join, and how it is looked for."""

    photos: int
    points: int
    neighbors: int
    device: str


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A model, or several that were joined. folders: photo -> the output folder of its features,
    for those that have any."""

    name: str
    model: colmap.Reconstruction
    folders: dict[str, PhotoFolder]


def _part(model: Path, path: Path) -> _Part:
    read, folder = colmap.read_model(model), photo_folder(path)
    if folder is None:
        return _Part(str(model), read, {})
    known = set(folder.features.names)
    owned = {name: folder for name in colmap.model_poses(read) if name in known}
    return _Part(str(model), read, owned)


def _models(path: Path) -> list[Path]:
    if (path / "sparse").is_dir():
        return Workspace(path).models()
    colmap.check_model(path)
    return [path]


def _join_all(parts: list[_Part], needed: _Needed) -> tuple[colmap.Reconstruction, dict[str, Any]]:
    """The largest model with all others joined to it: first those that share photos, the most
    first, then those that match."""
    waiting = sorted(parts, key=lambda part: -part.model.num_reg_images())
    joined = waiting.pop(0)
    agreeing: set[str] = set()
    shared: set[str] = set()
    linked = {"linked_photos": 0, "linked_pairs": 0, "linked_points": 0}
    while waiting:
        overlaps = [colmap.find_overlap(part.model, joined.model) for part in waiting]
        best = int(np.argmax([len(overlap.agreeing) for overlap in overlaps]))
        overlap, similarity = overlaps[best], overlaps[best].similarity
        links: colmap.Links = {}
        if similarity is None or not _supported(overlap, needed):
            best, found = _best_linked(waiting, joined, overlaps, needed)
            similarity, links = found.similarity, found.agreeing
            linked["linked_photos"] += sum(map(len, found.photos))
            linked["linked_pairs"] += len(links)
            linked["linked_points"] += found.points
        else:
            logger.info(
                "join: %s by %d of %d shared photos",
                waiting[best].name,
                len(overlap.agreeing),
                len(overlap.shared),
            )
            agreeing |= set(overlap.agreeing)
            shared |= set(overlap.shared)
        assert similarity is not None
        part = waiting.pop(best)
        model = colmap.merge_models(part.model, joined.model, similarity, links)
        joined = _Part(joined.name, model, part.folders | joined.folders)
    support: dict[str, Any] = {
        "agreeing": sorted(agreeing),
        "not_agreeing": sorted(shared - agreeing),
    }
    return joined.model, support | (linked if linked["linked_pairs"] else {})


def _supported(overlap: colmap.Overlap, needed: _Needed) -> bool:
    agreeing = len(overlap.agreeing)
    return agreeing >= needed.photos and 2 * agreeing >= len(overlap.shared)


def _best_linked(
    waiting: list[_Part], joined: _Part, overlaps: list[colmap.Overlap], needed: _Needed
) -> tuple[int, colmap.LinkedOverlap]:
    """The model that matches the joined ones best, if it does so enough.

    Raises EstimationError, which says what there is of each.
    """
    found = {
        i: _linked_overlap(part, joined, needed)
        for i, (part, overlap) in enumerate(zip(waiting, overlaps, strict=True))
        if part.folders and joined.folders and len(overlap.shared) < needed.photos
    }
    enough = [i for i, overlap in found.items() if _links_suffice(overlap, needed)]
    if enough:
        best = max(enough, key=lambda i: found[i].agreeing_matches)
        logger.info("join: %s by matches: %s", waiting[best].name, _told(found[best]))
        return best, found[best]
    reasons = []
    for i, (part, overlap) in enumerate(zip(waiting, overlaps, strict=True)):
        share, agree = len(overlap.shared), len(overlap.agreeing)
        least = max(needed.photos, -(-share // 2))
        reason = f"{part.name}: shares {share} photos with the others, of which {agree} agree on "
        reason += f"how it lies; {least} are needed"
        if i in found:
            reason += f". Matched with them: {_told(found[i])}; at least {needed.photos} photos, "
            reason += f"{needed.points} points and half of the matches are needed"
        elif share < needed.photos:
            reason += ", or output folders with features, whose photos can be matched"
        reasons.append(reason)
    raise EstimationError(
        "\n".join(reasons) + ". Map more photos in both, or all photos in one run"
    )


def _linked_overlap(part: _Part, joined: _Part, needed: _Needed) -> colmap.LinkedOverlap:
    sides = Photos(part.model, part.folders), Photos(joined.model, joined.folders)
    links = cross_matches(*sides, neighbors=needed.neighbors, device=needed.device)
    folders = {*part.folders.values(), *joined.folders.values()}
    scales = [
        folder.settings.pixel_scale(camera)
        for folder in folders
        for side in sides
        for camera in side.model.cameras.values()
    ]
    limit = AGREES_PX * float(np.median(scales))
    return colmap.find_linked_overlap(part.model, joined.model, links, limit)


def _links_suffice(found: colmap.LinkedOverlap, needed: _Needed) -> bool:
    photos = sum(map(len, found.photos))
    mostly = 2 * found.agreeing_matches >= found.matches
    return photos >= needed.photos and found.points >= needed.points and mostly


def _told(found: colmap.LinkedOverlap) -> str:
    photos = sum(map(len, found.photos))
    return (
        f"{found.agreeing_matches} of {found.matches} matches agree on how it lies, between "
        f"{photos} photos, and make {found.points} points one"
    )


def _adjust(model: colmap.Reconstruction, constant: set[colmap.CameraKey], loss_px: float) -> None:
    edges = [max(c.width, c.height) for c in colmap.model_cameras(model).values()]
    scale = max(1.0, float(np.median(edges)) / EDGE_PX)
    kept = {i for i, camera in model.cameras.items() if colmap.camera_key(camera) in constant}
    colmap.adjust_robustly(model, loss_px, kept, threads=-1, pixel_scale=scale)
    for name in colmap.drop_unfounded_images(model):
        logger.warning("join: %s has too few points to be sure of, and is left out", name)


def _write(workspace: Workspace, model: colmap.Reconstruction, stamp: str) -> None:
    workspace.set_stamp(workspace.sparse, None)
    with atomic_path(workspace.sparse) as temporary:
        colmap.write_model(model, temporary)
    workspace.set_stamp(workspace.sparse, stamp)
    workspace.forget_models(1)
