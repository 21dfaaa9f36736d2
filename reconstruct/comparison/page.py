"""compare.html: the tables, the methods' models in one frame, the same pairs by each method.

It is a report's page, filled from several output folders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import yaml

from reconstruct import colmap
from reconstruct.atomic import atomic_path
from reconstruct.comparison.agreement import target_from_source
from reconstruct.comparison.outcome import Comparison
from reconstruct.comparison.tables import (
    agreement_table,
    comparison_verdict,
    method_table,
    photo_table,
    time_table,
)
from reconstruct.datasets import Dataset
from reconstruct.evaluation.poses import transform_pose
from reconstruct.report.collect import PAIR_BYTES, POINTS
from reconstruct.report.content import ModelView, PairFigure, ReportContent, Settings, Table
from reconstruct.report.drawn_pairs import failed_figure, verified_figure
from reconstruct.report.gps import up_of
from reconstruct.report.output import OutputFolder
from reconstruct.report.pairs import chosen_pairs
from reconstruct.report.render import render
from reconstruct.report.scene import model_view
from reconstruct.types import ImagePair
from reconstruct.workspace import Workspace

PAGE = "compare.html"
PHOTOS = 300
"""Photos in the table."""
LARGEST_PHOTO = 60_000
"""Bytes of a photo on which matches are drawn."""

Folders = Mapping[str, OutputFolder]
"""Label -> what its run left."""


def write_page(comparison: Comparison, title: str, dataset: Dataset) -> None:
    """Write compare.html, one file that opens anywhere, into the comparison's folder."""
    folders = {
        method.label: OutputFolder(Workspace(method.output), dataset)
        for method in comparison.methods
        if method.error is None
    }
    with atomic_path(comparison.output / PAGE) as temporary:
        text = render(_content(comparison, title, folders))
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def _content(comparison: Comparison, title: str, folders: Folders) -> ReportContent:
    tables = [_table("Methods", method_table(comparison))]
    if comparison.agreements:
        caption = "Agreement: positions in % of the cameras' median distance from their middle"
        tables.append(_table(caption, agreement_table(comparison)))
    tables.append(_table("Seconds by stage", time_table(comparison)))
    observed = {label: _observations(folder) for label, folder in folders.items()}
    tables.append(_table("Observations of each photo", photo_table(observed, PHOTOS)))
    return ReportContent(
        title=title,
        verdict=comparison_verdict(comparison),
        models=_models(folders),
        tables=tuple(tables),
        pairs=_pairs(folders),
        skipped=tuple(
            (f"{m.label}: {name}", why)
            for m in comparison.methods
            for name, why in m.skipped.items()
        ),
        settings=_settings(comparison),
    )


def _table(title: str, rows: list[list[str]]) -> Table:
    head, *body = (tuple(row) for row in rows)
    return Table(title=title, head=head, rows=tuple(body))


def _settings(comparison: Comparison) -> Settings:
    changed = tuple(
        (f"{label}: {key}", _text(value), "")
        for label, settings in comparison.settings.items()
        for key, value in settings.items()
    )
    told = {label: dict(settings) for label, settings in comparison.settings.items()}
    return Settings(changed=changed, all=yaml.safe_dump(told, sort_keys=False, allow_unicode=True))


def _text(value: Any) -> str:
    dumped = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000)
    return dumped.removesuffix("\n...\n").strip()


def _models(folders: Folders) -> tuple[ModelView, ...]:
    """Each method's largest model, moved onto the first: switching between them shows where they
    differ."""
    views: list[ModelView] = []
    target: dict[str, Any] = {}
    up = up_of(next(iter(folders.values())).gps) if folders else None
    for label, folder in folders.items():
        model = folder.models[0]
        poses = dict(zip(model.names, model.poses, strict=True))
        moved = target_from_source(target, poses) if target else None
        if moved is not None:
            scale, rotation, translation = moved
            model = replace(
                model,
                poses=np.array([transform_pose(pose, *moved) for pose in model.poses]),
                xyz=scale * model.xyz @ rotation.T + translation,
            )
        target = target or poses
        views.append(model_view(label, model, {}, POINTS // len(folders), up=up))
    return tuple(views)


def _pairs(folders: Folders) -> tuple[PairFigure, ...]:
    """The pairs with most, median and fewest verified matches over all methods, by each of them."""
    total: dict[ImagePair, int] = {}
    for folder in folders.values():
        for pair, matches in folder.verified.items():
            total[pair] = total.get(pair, 0) + matches
    chosen = chosen_pairs(total)
    budget = min(LARGEST_PHOTO, 2 * PAIR_BYTES // max(1, 2 * len(chosen) * len(folders)))
    figures: list[PairFigure] = []
    for _, pair in chosen:
        drawn = [_figure(folder, label, pair, budget) for label, folder in folders.items()]
        kept = [figure for figure in drawn if figure is not None]
        figures += [replace(figure, first=i == 0) for i, figure in enumerate(kept)]
    return tuple(figures)


def _figure(folder: OutputFolder, label: str, pair: ImagePair, budget: int) -> PairFigure | None:
    if pair not in folder.verified:
        return failed_figure(folder, label, pair, budget)
    stored = colmap.database_pairs(folder.workspace.database, [pair])[pair]
    return verified_figure(folder, label, pair, stored, budget)


def _observations(folder: OutputFolder) -> dict[str, int]:
    model = folder.models[0]
    counts = np.bincount(model.image, minlength=len(model.names)).tolist()
    return dict(zip(model.names, counts, strict=True))
