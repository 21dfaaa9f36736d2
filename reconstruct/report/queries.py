"""Localized queries: each with the map photo that shares most inliers with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from reconstruct import colmap
from reconstruct.report.content import CameraView, PairFigure
from reconstruct.report.figures import count, length
from reconstruct.report.output import OutputFolder
from reconstruct.report.pairs import DrawnMatches, pair_figure
from reconstruct.report.scene import camera_view
from reconstruct.stages import QueryCard
from reconstruct.storage.estimates import EstimateStore
from reconstruct.types import PoseEstimate

Errors = Mapping[str, tuple[float, float]]
"""Query -> error of position (in the unit of the poses) and rotation (degrees)."""

FIGURES = 6
NEIGHBORS = 20
"""Map photos that are looked at for the best one."""
DRAWN_ERROR_PX = 12.0
"""Largest reprojection error of what counts as an inlier in a figure."""
WORDS = {
    "ok": "localized",
    "too_few_matches": "too few matches with the map",
    "ransac_failed": "no pose agrees with enough matches",
}
HEAD = ("query", "group", "outcome", "2D-3D matches", "inliers", "position error", "rotation error")


def estimates(output: OutputFolder) -> list[PoseEstimate]:
    """All estimates, failures too, sorted by name."""
    store = EstimateStore(output.workspace.localized)
    return [store.load(name) for name in sorted(store.fingerprints())]


def query_table(
    found: Sequence[PoseEstimate], errors: Errors, groups: Mapping[str, str]
) -> tuple[tuple[str, ...], ...]:
    """Rows for people, the head first; errors where any is known."""
    rows = [HEAD]
    for e in found:
        position, rotation = errors.get(e.name, (np.inf, np.inf))
        told = (length(position), f"{rotation:.3g}°") if np.isfinite(position) else ("-", "-")
        outcome = WORDS[e.status]
        counts = f"{e.matches:,}", f"{e.inliers:,}"
        rows.append((e.name, groups.get(e.name, ""), outcome, *counts, *told))
    return tuple(row if errors else row[:-2] for row in rows)


def query_views(
    found: Sequence[PoseEstimate],
    cameras: Mapping[str, colmap.Camera],
    photos: Mapping[str, int],
    errors: Errors,
) -> tuple[CameraView, ...]:
    """Localized queries for the 3D viewer."""
    views = []
    for e in found:
        if e.cam_from_world is not None and e.name in cameras:
            view = camera_view(e.name, e.cam_from_world, cameras[e.name], photos.get(e.name, -1))
            error = errors.get(e.name, (np.inf, 0.0))[0]
            shown = length(float(error)) if np.isfinite(error) else None
            views.append(replace(view, kind="query", error=shown))
    return tuple(views)


def query_figures(
    output: OutputFolder,
    found: Sequence[PoseEstimate],
    cameras: Mapping[str, colmap.Camera],
    budget: int,
) -> tuple[PairFigure, ...]:
    """Failed queries first, then from the weakest to the best: each beside its best map photo."""
    failed = [e for e in found if e.status != "ok"]
    ranked = sorted((e for e in found if e.status == "ok"), key=lambda e: (e.inliers, e.name))
    chosen = failed[: FIGURES // 2]
    places = np.linspace(0, len(ranked) - 1, min(FIGURES - len(chosen), len(ranked)))
    chosen += [ranked[i] for i in dict.fromkeys(places.round().astype(int).tolist())]
    figures = (_figure(output, e, cameras, budget // (2 * FIGURES)) for e in chosen)
    return tuple(figure for figure in figures if figure is not None)


def _figure(
    output: OutputFolder, e: PoseEstimate, cameras: Mapping[str, colmap.Camera], budget: int
) -> PairFigure | None:
    matched = [a if b == e.name else b for a, b in output.pairs if e.name in (a, b)]
    drawn = [(other, _drawn(output, e, other, cameras)) for other in matched[: 4 * NEIGHBORS]]
    drawn = [(other, d) for other, d in drawn if len(d.left)]
    if not drawn:
        return None
    best, lines = max(drawn, key=lambda item: (np.isfinite(item[1].errors_px).sum(), item[0]))
    left, right = output.picture(e.name, budget), output.picture(best, budget)
    if left is None or right is None:
        return None
    inliers = int(np.isfinite(lines.errors_px).sum())
    caption = f"{e.inliers:,} of {count(e.matches, '2D-3D match')} agree"
    caption += f", {inliers:,} of them with this photo" if inliers else ""
    label = WORDS[e.status].capitalize()
    return pair_figure(label, caption, (left, right), lines, failed=e.status != "ok")


def card_figures(
    output: OutputFolder, cards: Sequence[QueryCard], budget: int
) -> tuple[PairFigure, ...]:
    """Queries beside photos of the map, without lines."""
    each = budget // (2 * max(1, len(cards)))
    figures = []
    for card in cards:
        left, right = output.picture(card.query, each), output.picture(card.photo, each)
        if left is not None and right is not None:
            label, caption = card.label, card.caption
            figures.append(
                PairFigure(label=label, caption=caption, left=left, right=right, lines=(), total=0)
            )
    return tuple(figures)


def _drawn(
    output: OutputFolder, e: PoseEstimate, other: str, cameras: Mapping[str, colmap.Camera]
) -> DrawnMatches:
    """Matches of a query with a map photo; those that agree with its pose have an error."""
    empty = DrawnMatches(left=np.zeros((0, 2)), right=np.zeros((0, 2)), errors_px=np.zeros(0))
    rows = output.matches(e.name, other)
    left, right = output.keypoints(e.name), output.keypoints(other)
    if left is None or right is None or not len(rows):
        return empty
    if (rows.max(axis=0) >= (len(left), len(right))).any():
        return empty  # matches of an earlier photo of that name, which is not paired any more
    errors = np.full(len(rows), np.nan)
    if e.cam_from_world is not None and output.models and e.name in cameras:
        seen = _points(output.models[0], other, len(right))[rows[:, 1]]
        known = seen >= 0
        camera = cameras[e.name]
        xyz = output.models[0].xyz[seen[known]]
        projected = colmap.project(camera, e.cam_from_world, xyz)
        errors[known] = np.linalg.norm(projected - left[rows[known, 0]], axis=1)
        errors[~(errors <= DRAWN_ERROR_PX)] = np.nan
    kept = np.isfinite(errors) if np.isfinite(errors).any() else np.ones(len(rows), np.bool_)
    points = [np.asarray(xy[rows[kept, i]], np.float64) for i, xy in enumerate((left, right))]
    return DrawnMatches(left=points[0], right=points[1], errors_px=errors[kept])


def _points(model: colmap.ModelArrays, name: str, size: int) -> NDArray[np.int64]:
    """(size,) index of the 3D point of each keypoint of a photo, -1 for none."""
    result = np.full(size, -1, np.int64)
    if name in model.names:
        own = np.flatnonzero(model.image == model.names.index(name))
        own = own[model.keypoint[own] < size]
        result[model.keypoint[own]] = model.point[own]
    return result
