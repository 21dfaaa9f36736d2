"""The outcome of a run in a sentence or two, from the figures of its stages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reconstruct.report.figures import count, length, plain
from reconstruct.stages import Summary

Level = Literal["good", "partial", "bad"]
USUAL_PX = "3"
"""Column of a benchmark's table that methods are judged by."""
HIGH_ERROR_PX = 1.5
"""Larger mean reprojection errors are mentioned: the camera model may not fit the lens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """level: all is well; something was left out or is doubtful; there is no result.

    headline: one sentence. notes: what was left out or is doubtful, and what to try, a sentence
    each.
    """

    level: Level
    headline: str
    notes: tuple[str, ...] = ()


def verdict(summary: Summary) -> Verdict:
    """The verdict on a run, whatever its kind."""
    figures = summary.figures
    if "localize" in figures:
        return _localized(summary)
    if "map" in figures:
        return _mapped(summary)
    if "train" in figures:
        return _trained(figures["train"], matcher="crops" in figures)
    compared = _compared(summary)
    return compared or _prepared(summary)


def _mapped(summary: Summary) -> Verdict:
    found = summary.figures["map"]
    registered, total = int(found["registered_images"]), int(found["of_images"])
    total = max(total, registered)
    models, error = int(found["models"]), float(found["mean_reprojection_error_px"])
    where = "in one model" if models == 1 else f"in the largest of {models} models"
    parts = [f"{registered} of {count(total, 'photo')} {where}", f"{error:.2f} px"]
    evaluated = summary.figures.get("evaluate", {})
    if "position_mean" in evaluated:
        parts.append(f"{length(float(evaluated['position_mean']), 2)} from the reference")
    notes = []
    missing = list(found.get("not_registered", []))
    if missing:
        notes.append(
            f"Not in the model: {_names(missing)}. More overlap with the others, pair.method: "
            "exhaustive, extract.local.multiscale=true or a larger max_edge may bring them in."
        )
    if models > 1:
        notes.append(
            f"The photos fall into {models} models: no verified pair connects them. Photos taken "
            "between their places would."
        )
    if error > HIGH_ERROR_PX:
        notes.append(
            f"A mean reprojection error of {error:.2f} px is high: look at the residuals over the "
            "image plane, and try a camera model with more distortion (dataset.camera_model)."
        )
    notes += _skipped(summary)
    level: Level = "partial" if notes else "good"
    return Verdict(level=level, headline=", ".join(parts), notes=tuple(notes))


def _localized(summary: Summary) -> Verdict:
    found = summary.figures["localize"]
    queries, localized = int(found["queries"]), int(found["localized"])
    parts = [f"{localized} of {count(queries, 'query')} localized"]
    table = summary.tables.get("localization")
    if table and len(table) > 1:
        named = dict(zip(table[0], table[1], strict=False))
        share = next(((k, v) for k, v in named.items() if re.match(r"[\d.]+ m, ", k)), None)
        if share:
            parts.append(f"{share[1]} within {share[0].replace(' deg', '°')}")
        median = named.get("median m", "failed")
        if median != "failed":
            degrees = float(named["median deg"])
            parts.append(f"median {length(float(median), 2)} and {degrees:.2g}°")
    elif "median_inliers" in found:
        parts.append(f"median {plain(found['median_inliers'])} inliers")
    notes = []
    lost = _far(table)
    if lost:
        notes.append(
            "No query is within the largest threshold of its true pose: are the map and the "
            "reference in one frame, and is the reference in metres?"
        )
    failed = list(found.get("failed", []))
    if failed:
        notes.append(
            f"Without a pose: {_names(failed)}. More retrieved images (pair.queries.neighbors) or "
            "photos of the map nearer to them may help."
        )
    notes += _skipped(summary)
    nothing = lost or (queries and not localized)
    level: Level = "bad" if nothing else "partial" if notes else "good"
    return Verdict(level=level, headline=", ".join(parts), notes=tuple(notes))


def _far(table: Sequence[Sequence[str]] | None) -> bool:
    """Whether no query of a table lies within any of its thresholds."""
    if not table or len(table) < 2:
        return False
    shares = [cell for head, cell in zip(*table[:2], strict=False) if re.match(r"[\d.]+ m, ", head)]
    return bool(shares) and all(_value(cell) == 0 for cell in shares)


def _trained(found: Mapping[str, Any], matcher: bool) -> Verdict:
    headline = (
        f"{count(int(found['steps']), 'step')} trained, best validation loss "
        f"{found['best validation loss']} at step {found['at step']}"
    )
    use, key = (
        ("Match", "match.method=lightglue --set match") if matcher else ("Extract", "extract.local")
    )
    note = f"{use} with it: --set {key}.weights={found['weights']}"
    start = int(found["at step"] or 0) == 0
    notes = ("No step was better than the weights to start from.",) if start else (note,)
    return Verdict(level="partial" if start else "good", headline=headline, notes=notes)


def _compared(summary: Summary) -> Verdict | None:
    """The verdict on a comparison: the best method or row of the first table that has shares."""
    for title, (head, *rows) in summary.tables.items():
        shares = [i for i, word in enumerate(head) if re.match(r"[\d.]+( m, .*)?$", word)]
        rated = [row for row in rows if shares and _value(row[shares[0]]) is not None]
        if not rated:
            continue
        column = head.index(USUAL_PX) if USUAL_PX in head else shares[0]
        best = max(rated, key=lambda row: _value(row[column]) or 0.0)
        limit = head[column] if "m" in head[column] else f"{head[column]} px"
        headline = (
            f"{best[0]} leads {count(len(rated), head[0])}: {best[column].rstrip(' %')} % within "
            f"{limit.replace(' deg', '°')} ({title.split(':')[0].rstrip(', %')})"
        )
        notes = tuple(_skipped(summary))
        return Verdict(level="partial" if notes else "good", headline=headline, notes=notes)
    return None


def _prepared(summary: Summary) -> Verdict:
    """A run that ends before a map: what its last stage with figures says."""
    notes = tuple(_skipped(summary))
    level: Level = "partial" if notes else "good"
    if not summary.figures:
        return Verdict(level=level, headline="Nothing was to do", notes=notes)
    stage, found = list(summary.figures.items())[-1]
    numbers = [(k, v) for k, v in found.items() if isinstance(v, int | float)][:3]
    told = ", ".join(f"{plain(value)} {name.replace('_', ' ')}" for name, value in numbers)
    return Verdict(level=level, headline=f"{stage}: {told or 'done'}", notes=notes)


def _skipped(summary: Summary) -> list[str]:
    names = list(summary.skipped)
    return [f"Skipped: {_names(names)}; the reasons are listed below."] if names else []


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def _value(cell: str) -> float | None:
    try:
        return float(cell.rstrip(" %"))
    except ValueError:
        return None
