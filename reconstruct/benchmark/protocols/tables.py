"""Figures of a benchmark as tables: for the terminal, the report, and papers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconstruct.benchmark.protocols import ENOUGH_CORRECT, Benchmark

Rows = list[list[str]]
"""Rows of a table; the first is its header."""


def benchmark_tables(benchmark: Benchmark, methods: Mapping[str, Any]) -> dict[str, Rows]:
    """One table per group; rows from the literature are marked ``reported``.

    A column with a number as header holds shares within that many pixels. Shares and areas are in
    percent. ``correct`` is the mean number of correct matches per pair, ``>=15`` the share of pairs
    with that many.

    Args:
        benchmark: The protocol.
        methods: Label -> ``{"features": mean, "groups": {group: MethodScores as a dict}}``, as in
            metrics.json.

    Returns:
        Title -> rows.
    """
    tables: dict[str, Rows] = {}
    for place, (group, pairs) in enumerate(benchmark.groups.items()):
        rows = [_head(benchmark)]
        for label, figures in methods.items():
            rows.append(_row(label, figures["features"], figures["groups"][group], len(pairs)))
        if place == 0:
            blank = ["-"] * (len(rows[0]) - 3)
            rows += [
                [f"{row.method} (reported)", f"{row.features:.0f}", f"{row.matches:.0f}", *blank]
                for row in benchmark.reported
            ]
        number = f"{len(pairs)} pair{'s' * (len(pairs) != 1)}"
        source = f"; reported: {benchmark.source}" if place == 0 and benchmark.reported else ""
        title = f"{benchmark.name}, {group}, {number}: {benchmark.share}, %{source}"
        tables[title] = rows
    return tables


def _head(benchmark: Benchmark) -> list[str]:
    thresholds = [f"{t:g}" for t in benchmark.thresholds_px]
    areas = [f"AUC@{t:g}" for t in benchmark.auc_thresholds_px]
    head = ["method", "features", "matches", *thresholds, *areas]
    return head if benchmark.correct_px is None else [*head, "correct", f">={ENOUGH_CORRECT}"]


def _row(label: str, features: float, result: Mapping[str, Any], pairs: int) -> list[str]:
    name = label if result["pairs"] == pairs else f"{label} ({result['pairs']} pairs)"
    percent = [f"{100 * v:.1f}" for v in (*result["shares"].values(), *result["auc"].values())]
    row = [name, f"{features:.0f}", f"{result['matches']:.0f}", *percent]
    if result["correct"] is None:
        return row
    return [*row, f"{result['correct']:.0f}", f"{100 * result['matched']:.0f}"]
