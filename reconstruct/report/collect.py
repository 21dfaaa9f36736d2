"""Fills a report from an output folder: what each part of `ReportContent` is made of."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from reconstruct import colmap
from reconstruct.datasets import Dataset, cameras
from reconstruct.errors import ReconstructError
from reconstruct.evaluation.localization import query_errors
from reconstruct.evaluation.poses import transform_pose
from reconstruct.images import read_image
from reconstruct.localization.evaluate import read_truth
from reconstruct.report.content import (
    CameraView,
    CloseUp,
    Density,
    Histogram,
    MatchGraph,
    ModelView,
    PairFigure,
    PhotoRow,
    ReportContent,
    Rows,
    StageCost,
    Table,
)
from reconstruct.report.drawn_pairs import failed_figure, removed_figure, verified_figure
from reconstruct.report.figures import count, figure_texts
from reconstruct.report.gps import draw_plan, gps_tables, up_of
from reconstruct.report.graph import match_graph
from reconstruct.report.output import OutputFolder, dataset_of
from reconstruct.report.pairs import chosen_pairs, close_ups, failed_pairs, removed_pairs
from reconstruct.report.photos import photo_rows, shown_rows, with_thumbnails
from reconstruct.report.queries import (
    Errors,
    card_figures,
    estimates,
    query_figures,
    query_table,
    query_views,
)
from reconstruct.report.scene import model_view
from reconstruct.report.settings import report_settings
from reconstruct.report.statistics import (
    density,
    errors_before,
    histogram,
    residual_fields,
    triangulation_angles_deg,
)
from reconstruct.report.verdict import verdict
from reconstruct.stages import Summary
from reconstruct.stages.evaluate import similarity_to
from reconstruct.types import ImagePair, PoseEstimate
from reconstruct.workspace import Workspace

Config = BaseModel | Mapping[str, Any]

POINTS = 60_000
"""Of all models together, in the 3D viewer."""
PHOTO_BYTES, PAIR_BYTES = 750_000, 400_000
"""Of all thumbnails, and of the photos on which matches are drawn; in the page a third more."""
MODELS = 4
FAILED = 2
"""Pairs shown that no geometry was found for."""
REMOVED = 3
"""Pairs shown that were removed, as they only look alike."""
DENSITY_PHOTOS = 400


def collect(
    workspace: Workspace, summary: Summary, config: Config, dataset: Dataset | None = None
) -> ReportContent:
    """The report on a run.

    Args:
        config: the run's configuration; as a section, it is compared with its defaults.
        dataset: where the photos are; None: in the folder that the configuration names.
    """
    settings = config if isinstance(config, BaseModel) else dict(config)
    output = OutputFolder(workspace, dataset_of(workspace, settings, dataset))
    mapped = bool(output.models)
    has_photos = mapped or workspace.features.is_dir()
    all_rows = photo_rows(output, summary.skipped) if has_photos else ()
    rows = with_thumbnails(shown_rows(all_rows), output, PHOTO_BYTES)
    photos = {row.name: i for i, row in enumerate(rows)}
    found = estimates(output) if workspace.localized.is_dir() else []
    errors = _query_errors(output, found, config)
    assigned = _query_cameras(output, found, config)
    views = query_views(found, assigned, photos, errors)
    groups = {query.name: query.group for query in output.dataset.queries}
    share = PAIR_BYTES // 2 if found or summary.cards else PAIR_BYTES
    return ReportContent(
        title=str(getattr(config, "name", None) or settings_name(settings)),
        verdict=verdict(summary),
        tiles=tiles(summary),
        models=_models(output, photos, views),
        photos=rows,
        photos_total=len(all_rows),
        pairs=_pairs(output, share, "disambiguate" in summary.figures),
        closeups=_closeups(output),
        graph=_graph(output, all_rows, photos),
        histograms=_histograms(output),
        residuals=residual_fields(output.models[0]) if mapped else (),
        density=_density(output),
        queries=(
            *query_figures(output, found, assigned, PAIR_BYTES - share),
            *card_figures(output, summary.cards, PAIR_BYTES - share),
        ),
        query_rows=query_table(found, errors, groups) if found else (),
        tables=tuple(_table(title, rows_) for title, rows_ in _tables(output, summary).items()),
        drawings=(*_plans(output), *summary.drawings.items()),
        stages=_stages(summary),
        skipped=tuple(summary.skipped.items()),
        settings=report_settings(config),
    )


def settings_name(settings: Any) -> str:
    """The run's name in its settings."""
    return str(settings.get("name", "run")) if isinstance(settings, Mapping) else "run"


def _tables(output: OutputFolder, summary: Summary) -> dict[str, list[list[str]]]:
    return summary.tables | (gps_tables(output.gps) if output.models and output.gps else {})


def _plans(output: OutputFolder) -> tuple[tuple[str, str], ...]:
    if not output.models or not output.gps:
        return ()
    model = output.models[0]
    drawn = draw_plan(output.gps, dict(zip(model.names, model.centers, strict=True)))
    return () if drawn is None else (("Cameras and their GPS, from above", drawn),)


def _models(
    output: OutputFolder, photos: Mapping[str, int], queries: tuple[CameraView, ...]
) -> tuple[ModelView, ...]:
    models = output.models[:MODELS]
    total = max(sum(len(m.xyz) for m in models), 1)
    views = []
    for i, model in enumerate(models):
        name = "Model" if len(models) == 1 else f"Model {i + 1}"
        limit = max(1, POINTS * len(model.xyz) // total)
        own = queries if i == 0 else ()
        views.append(model_view(name, model, photos, limit, own, up_of(output.gps, i)))
    return tuple(views)


def _pairs(output: OutputFolder, budget: int, disambiguated: bool) -> tuple[PairFigure, ...]:
    chosen = chosen_pairs(output.verified)

    @cache
    def raw(pair: ImagePair) -> int:
        return len(output.matches(*pair))

    queries = output.dataset.query_names
    candidates = [pair for pair in output.pairs if not queries & set(pair)]
    places = output.disambiguation if disambiguated else None  # of an earlier run
    removed = removed_pairs(places) if places is not None else []
    gone = set(removed)
    candidates = [pair for pair in candidates if pair not in gone]
    failed = failed_pairs(candidates, output.verified, raw) if output.verified else []
    failed = [pair for pair in failed if raw(pair)][:FAILED]
    each = budget // (2 * max(1, len(chosen) + len(failed) + len(removed[:REMOVED])))
    wanted = [pair for _, pair in chosen]
    stored = colmap.database_pairs(output.workspace.database, wanted) if wanted else {}
    figures = [verified_figure(output, label, pair, stored[pair], each) for label, pair in chosen]
    figures += [failed_figure(output, "Failed", pair, each) for pair in failed]
    for pair in removed[:REMOVED]:
        assert places is not None
        found = places.conflicts.get(pair)
        figures.append(removed_figure(output, "Removed: looks alike", pair, found, each))
    return tuple(figure for figure in figures if figure is not None)


def _closeups(output: OutputFolder) -> tuple[CloseUp, ...]:
    if not output.models:
        return ()
    try:
        return close_ups(
            output.models[0],
            output.keypoints_before,
            lambda name: read_image(output.dataset.path(name)),
        )
    except ReconstructError:  # the photos are gone
        return ()


def _graph(
    output: OutputFolder, rows: tuple[PhotoRow, ...], photos: Mapping[str, int]
) -> MatchGraph | None:
    queries = output.dataset.query_names
    names = [row.name for row in rows if row.name not in queries]
    model = output.models[0] if output.models else None
    return match_graph(names, output.verified, model, photos, up_of(output.gps))


def _histograms(output: OutputFolder) -> tuple[Histogram, ...]:
    charts = []
    if output.models:
        model = output.models[0]
        lengths = np.bincount(model.point, minlength=len(model.xyz))
        mean = f"mean {lengths.mean():.1f}" if len(lengths) else "no points"
        charts.append(
            histogram(
                "Track length",
                "observations per point",
                f"{count(len(lengths), 'point')}, {mean}",
                {"points": lengths},
                whole=True,
            )
        )
        charts.append(_error_histogram(output, model))
        angles = triangulation_angles_deg(model)
        middle = f"median {np.median(angles):.1f}°" if len(angles) else "no points"
        charts.append(
            histogram(
                "Triangulation angle",
                "largest angle between rays [°]",
                f"{middle}; below 2° depth is uncertain",
                {"points": angles},
            )
        )
    if output.verified:
        inliers = np.array(list(output.verified.values()))
        charts.append(
            histogram(
                "Matches per pair",
                "verified matches",
                f"{count(len(inliers), 'verified pair')}, median {np.median(inliers):,.0f}",
                {"pairs": inliers},
                whole=True,
            )
        )
    return tuple(charts)


def _error_histogram(output: OutputFolder, model: colmap.ModelArrays) -> Histogram:
    both = errors_before(model, output.keypoints_before)
    title, xlabel = "Reprojection error", "error [px]"
    if both is None:
        told = f"mean {np.nanmean(output.errors_px):.2f} px" if len(output.errors_px) else "none"
        return histogram(title, xlabel, told, {"observations": output.errors_px})
    before, after = both
    told = (
        f"mean {np.nanmean(before):.2f} px where keypoints were found, {np.nanmean(after):.2f} px "
        "where refinement put them; the same 3D points"
    )
    series = {"before refinement": before, "after": after}
    return histogram(title, xlabel, told, series, ylabel="observations")


def _density(output: OutputFolder) -> Density | None:
    names = output.featured[:: max(1, len(output.featured) // DENSITY_PHOTOS)]
    found = {name: output.keypoints(name) for name in names}
    keypoints = {name: xy for name, xy in found.items() if xy is not None}
    return density(keypoints, {name: output.size(name) for name in keypoints})


def tiles(summary: Summary) -> Rows:
    """The figures that people look for first."""
    wanted = (
        *(("map", "registered_images"), ("map", "points"), ("map", "mean_track_length")),
        *(("map", "mean_reprojection_error_px"), ("verify", "verified_pairs")),
        *(("evaluate", "position_mean"), ("evaluate", "rotation_mean_deg")),
        *(("map", "gps_rms_horizontal_m"),),
        *(("localize", "localized"), ("localize", "median_inliers")),
        *(("train", "steps"), ("train", "best validation loss"), ("train", "at step")),
    )
    texts = {stage: figure_texts(figures) for stage, figures in summary.figures.items()}
    return tuple(texts[stage][name] for stage, name in wanted if name in texts.get(stage, {}))


def _stages(summary: Summary) -> tuple[StageCost, ...]:
    seconds = summary.seconds
    return tuple(
        StageCost(
            name=stage,
            seconds=seconds.get(stage),
            memory_mb=summary.memory_mb.get(stage),
            figures=tuple(figure_texts(summary.figures.get(stage, {})).values()),
        )
        for stage in dict.fromkeys([*summary.figures, *seconds])
    )


def _table(title: str, rows: list[list[str]]) -> Table:
    head, *body = (tuple(map(str, row)) for row in rows)
    return Table(title=title, head=head, rows=tuple(body))


def _query_cameras(
    output: OutputFolder, found: list[PoseEstimate], config: Config
) -> dict[str, colmap.Camera]:
    """Cameras of the queries as they were localized with."""
    section = getattr(config, "dataset", None)
    if not found or not isinstance(section, cameras.CamerasConfig):
        return {}
    try:
        assigned = cameras.assign(
            section, output.dataset, {e.name: output.size(e.name) for e in found}
        )
    except ReconstructError:
        return {}
    result = {}
    for e in found:
        known = colmap.intrinsics(assigned.cameras[assigned.camera_ids[e.name]])
        params = e.params or known.params
        result[e.name] = colmap.make_camera(known.model, params, known.size)
    return result


def _query_errors(output: OutputFolder, found: list[PoseEstimate], config: Config) -> Errors:
    """Errors of the queries whose true pose is known."""
    evaluate, mapped = getattr(config, "evaluate", None), getattr(config, "map", None)
    given = getattr(evaluate, "reference", None)
    reference = colmap.model_folder(Path(given)) if given else output.dataset.reference
    if not found or evaluate is None or reference is None:
        return {}
    poses = {e.name: e.cam_from_world for e in found if e.cam_from_world is not None}
    try:
        truth = read_truth(reference)
        if evaluate.align and mapped is not None and mapped.method != "triangulate":
            model = output.models[0]
            moved = similarity_to(dict(zip(model.names, model.poses, strict=True)), truth)
            poses = {name: transform_pose(pose, *moved) for name, pose in poses.items()}
    except ReconstructError:
        return {}
    return query_errors(poses, {e.name: truth[e.name] for e in found if e.name in truth})
