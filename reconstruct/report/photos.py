"""The table of photos: what came of each, and what to try for those that stayed out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from reconstruct.datasets.gps import exif_position
from reconstruct.geometry import Float64
from reconstruct.report.content import PhotoRow
from reconstruct.report.figures import count
from reconstruct.report.gps import aligned_residuals_m, gps_residuals_m
from reconstruct.report.output import OutputFolder
from reconstruct.report.pictures import thumbnail

ROWS = 1000
"""Photos in the table; of more, those that stayed out come first, then an even choice."""
THUMBNAILS = 400
FEW_KEYPOINTS = 200
LARGEST_THUMBNAIL = 24_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Mapped:
    """Figures of the photos of one model, by name."""

    observations: Mapping[str, int]
    error_px: Mapping[str, float]
    uncertainty: Mapping[str, tuple[float, float]]
    focal: Mapping[str, float]
    camera: Mapping[str, int]
    centers: Mapping[str, Float64]


def photo_rows(output: OutputFolder, skipped: Mapping[str, str]) -> tuple[PhotoRow, ...]:
    """A row for each photo of the run, sorted by name, without thumbnails."""
    names = sorted({*output.dataset.names, *(n for m in output.models for n in m.names)})
    groups = {query.name: query.group for query in output.dataset.queries}
    mapped = [_figures(output, i) for i in range(len(output.models))]
    partners: dict[str, int] = {}
    for pair in output.verified:
        for name in pair:
            partners[name] = partners.get(name, 0) + 1
    rows = []
    for name in names:
        row = PhotoRow(
            name=name,
            thumbnail=None,
            state="query" if name in groups else "not mapped" if output.models else "",
            keypoints=output.keypoint_counts.get(name),
            matched=partners.get(name, 0) if output.verified and name not in groups else None,
            group=groups.get(name, ""),
        )
        own = next((i for i, m in enumerate(mapped) if name in m.camera), None)
        if own is not None:
            row = _with_figures(row, mapped[own], own)
        prior = output.prior_cameras.get(name)
        if prior is not None:
            row = replace(row, focal_prior=round(prior.mean_focal_length(), 1))
        rows.append(replace(row, advice=advice(row, skipped.get(name))))
    return tuple(_with_gps(rows, output, mapped[0] if mapped else None))


def _figures(output: OutputFolder, number: int) -> _Mapped:
    model = output.models[number]
    counts = np.bincount(model.image, minlength=len(model.names))
    errors = output.errors_px if number == 0 else np.full(len(model.image), np.nan)
    total = np.bincount(model.image, np.nan_to_num(errors), len(model.names))
    mean = total / np.maximum(counts, 1)
    return _Mapped(
        observations=dict(zip(model.names, counts.tolist(), strict=True)),
        error_px=dict(zip(model.names, mean.tolist(), strict=True)) if number == 0 else {},
        uncertainty=output.uncertainty(number),
        focal={n: c.mean_focal_length() for n, c in zip(model.names, model.cameras, strict=True)},
        camera={n: int(c.camera_id) for n, c in zip(model.names, model.cameras, strict=True)},
        centers=dict(zip(model.names, model.centers, strict=True)),
    )


def _with_figures(row: PhotoRow, mapped: _Mapped, model: int) -> PhotoRow:
    error = mapped.error_px.get(row.name)
    percent, _ = mapped.uncertainty.get(row.name, (None, None))
    return replace(
        row,
        state="mapped" if model == 0 else f"model {model + 1}",
        observations=mapped.observations[row.name],
        error_px=None if error is None else round(error, 3),
        position_uncertainty_percent=percent,
        focal=round(mapped.focal[row.name], 1),
        group=row.group or f"camera {mapped.camera[row.name]}",
    )


def _with_gps(rows: list[PhotoRow], output: OutputFolder, mapped: _Mapped | None) -> list[PhotoRow]:
    if mapped is None:
        return rows
    if output.gps is not None:
        away = aligned_residuals_m(output.gps)
    else:
        found = {name: exif_position(output.dataset.path(name)) for name in mapped.centers}
        positions = {name: at for name, at in found.items() if at is not None}
        away = gps_residuals_m(positions, mapped.centers)
    return [replace(r, gps_m=round(away[r.name], 2)) if r.name in away else r for r in rows]


def advice(row: PhotoRow, skipped: str | None) -> str:
    """Why a photo is not in the largest model, and what to try; empty where it is."""
    if skipped is not None:
        return skipped
    if row.state.startswith("model "):
        return (
            "No reliable pair connects it with the largest model: photos taken between the two "
            "places would."
        )
    if row.state != "not mapped":
        return ""
    if row.keypoints is not None and row.keypoints < FEW_KEYPOINTS:
        return (
            f"Only {count(row.keypoints, 'keypoint')}: blurred, dark or without texture? A larger "
            "max_edge or multiscale=true finds more."
        )
    if row.matched:
        return (
            f"Verified with {count(row.matched, 'photo')}, but too few of its matches are 3D "
            "points: it needs more overlap with at least two photos at once."
        )
    if row.matched == 0:
        return (
            "No other photo matches it: more overlap, pair.method: exhaustive, or more neighbors."
        )
    return ""


def shown_rows(rows: Sequence[PhotoRow]) -> tuple[PhotoRow, ...]:
    """At most `ROWS` of them, by name."""
    if len(rows) <= ROWS:
        return tuple(rows)
    out = [row for row in rows if row.state == "not mapped"][: ROWS // 2]
    others = [row for row in rows if row.state != "not mapped"]
    places = np.linspace(0, len(others) - 1, ROWS - len(out)).round().astype(int)
    kept = [*out, *(others[i] for i in dict.fromkeys(places.tolist()))]
    return tuple(sorted(kept, key=lambda row: row.name))


def with_thumbnails(
    rows: Sequence[PhotoRow], output: OutputFolder, budget: int
) -> tuple[PhotoRow, ...]:
    """The rows with small pictures that share ``budget`` bytes; of many, an even choice has one."""
    step = max(1, -(-len(rows) // THUMBNAILS))
    each = min(LARGEST_THUMBNAIL, budget // max(1, -(-len(rows) // step)))
    return tuple(
        replace(row, thumbnail=thumbnail(output.dataset.path(row.name), each))
        if i % step == 0
        else row
        for i, row in enumerate(rows)
    )
