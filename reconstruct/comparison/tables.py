"""A comparison as tables of texts, the head first, and in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reconstruct.comparison.agreement import Agreement
from reconstruct.comparison.outcome import Comparison, MethodOutcome
from reconstruct.report.figures import count, duration
from reconstruct.report.verdict import Verdict

Rows = list[list[str]]
NONE = "-"
NAMED = 5
"""Photos or methods named in a sentence."""


def method_table(comparison: Comparison) -> Rows:
    """A row a method; columns that no method has a figure for are left out."""
    columns: list[tuple[str, Callable[[MethodOutcome], str]]] = [
        ("registered", _registered),
        ("models", _of_map("models", "{:,}")),
        ("points", _of_map("points", "{:,}")),
        ("observations", _of_map("observations", "{:,}")),
        ("track length", _of_map("mean_track_length", "{:.2f}")),
        ("error px", _of_map("mean_reprojection_error_px", "{:.2f}")),
        ("localized", _localized),
        ("AUC 1° %", lambda m: f"{m.metrics.auc_percent['1']:.1f}" if m.metrics else NONE),
        ("AUC 5° %", lambda m: f"{m.metrics.auc_percent['5']:.1f}" if m.metrics else NONE),
        ("position", lambda m: f"{m.metrics.position_median:.3g}" if m.metrics else NONE),
        ("rotation °", lambda m: f"{m.metrics.rotation_median_deg:.3g}" if m.metrics else NONE),
        ("time", lambda m: duration(sum(m.seconds.values())) if m.seconds else NONE),
    ]
    rows = [[told(method) for _, told in columns] for method in comparison.methods]
    kept = [i for i in range(len(columns)) if any(row[i] != NONE for row in rows)]
    head = ["method", *(columns[i][0] for i in kept)]
    labels = [method.label for method in comparison.methods]
    return [head, *([n, *(row[i] for i in kept)] for n, row in zip(labels, rows, strict=True))]


def agreement_table(comparison: Comparison) -> Rows:
    """A row for all two methods: how far the poses of the photos that both mapped differ."""
    head = ["methods", "photos in both", "rotation °", "largest", "position %", "largest", "apart"]
    return [head, *(_agreement_row(p, a) for p, a in comparison.agreements.items())]


def time_table(comparison: Comparison) -> Rows:
    """Seconds by stage."""
    stages = list(dict.fromkeys(s for m in comparison.methods for s in m.seconds))
    rows = [
        [m.label, *(f"{m.seconds[s]:.1f}" if s in m.seconds else NONE for s in stages)]
        for m in comparison.methods
    ]
    return [["method", *stages], *rows]


def photo_table(observed: Mapping[str, Mapping[str, int]], limit: int) -> Rows:
    """Observations of each photo in each method's model, those first that some methods have in
    their map and others not.

    Args:
        observed: Method -> photo -> observations in its largest model.
        limit: Photos at most.
    """
    names = sorted({name for counts in observed.values() for name in counts})
    disputed = [n for n in names if any(n not in counts for counts in observed.values())]
    ordered = [*disputed, *(name for name in names if name not in set(disputed))][:limit]
    rows = [
        [name, *(f"{c[name]:,}" if name in c else "not mapped" for c in observed.values())]
        for name in ordered
    ]
    return [["photo", *observed], *rows]


def comparison_verdict(comparison: Comparison) -> Verdict:
    """Which method mapped most, and where they contradict each other."""
    done = [m for m in comparison.methods if m.error is None]
    notes = [f"{m.label} made no map: {m.error}" for m in comparison.methods if m.error]
    for (first, second), found in comparison.agreements.items():
        if found is not None and found.apart:
            notes.append(
                f"{first} and {second} put these in different places: {_few(found.apart)}."
            )
    return Verdict(
        level="partial" if notes else "good", headline=_headline(done), notes=tuple(notes)
    )


def _headline(done: list[MethodOutcome]) -> str:
    most = max(int(m.map["registered_images"]) for m in done)
    leading = [m for m in done if m.map["registered_images"] == most]
    total = int(done[0].map["of_images"])
    who = ", ".join(m.label for m in leading) if len(leading) < len(done) else None
    mapped = (
        f"{who} {'maps' if len(leading) == 1 else 'map'} most photos: {most} of {total}"
        if who
        else f"{count(len(done), 'method')}, each with {most} of {count(total, 'photo')} mapped"
    )
    rated = sorted(((m.metrics.auc_percent["1"], m.label) for m in done if m.metrics), reverse=True)
    if rated:
        mapped += f"; poses, AUC at 1°: {_few([f'{label} {auc:.1f} %' for auc, label in rated])}"
    return mapped


def _few(texts: Sequence[str]) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return ", ".join(texts[:NAMED]) + more


def _registered(method: MethodOutcome) -> str:
    if method.error is not None:
        return "failed"
    return f"{method.map['registered_images']} of {method.map['of_images']}"


def _localized(method: MethodOutcome) -> str:
    found = method.figures.get("localize")
    return f"{found['localized']} of {found['queries']}" if found else NONE


def _of_map(name: str, form: str) -> Callable[[MethodOutcome], str]:
    def told(method: MethodOutcome) -> str:
        value: Any = method.map.get(name)
        return NONE if value is None else form.format(value)

    return told


def _agreement_row(pair: tuple[str, str], found: Agreement | None) -> list[str]:
    if found is None:
        return [" and ".join(pair), "too few", *[NONE] * 5]
    return [
        " and ".join(pair),
        str(found.common),
        f"{found.rotation_median_deg:.3f}",
        f"{found.rotation_max_deg:.3f}",
        f"{found.position_median_percent:.3f}",
        f"{found.position_max_percent:.3f}",
        str(len(found.apart)),
    ]
