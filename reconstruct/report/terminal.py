"""Tables for people: the summary of a run, a plan, pose errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reconstruct.evaluation.poses import PoseMetrics
from reconstruct.stages import Plan, Summary

WIDE = 170
"""Columns where the output is no terminal."""
SHOWN = 20
"""Longest list of names that a table shows; the log has them all."""


def print_summary(output: Path, summary: Summary) -> None:
    """Figures of each stage, and what was skipped and why."""
    console = Console()
    if not console.is_terminal:
        console.width = WIDE
    table = _table(f"{output}", "stage", "figure", "value")
    for stage, figures in summary.figures.items():
        for i, (name, value) in enumerate(figures.items()):
            table.add_row(stage if i == 0 else "", name.replace("_", " "), _text(value))
        table.add_section()
    console.print(table)
    for title, (head, *rows) in summary.tables.items():
        console.print(_figures(title, head, rows))
    if summary.skipped:
        skipped = _table("skipped", "what", "why")
        for name, reason in list(summary.skipped.items())[:SHOWN]:
            skipped.add_row(_escape(name), _escape(reason))
        if len(summary.skipped) > SHOWN:
            skipped.add_row("...", f"and {len(summary.skipped) - SHOWN} more, see log.txt")
        console.print(skipped)


def print_plan(plans: Sequence[tuple[str, Plan]]) -> None:
    """One line a stage: state, how much is to do, and why."""
    table = _table("plan", "stage", "state", "to do", "why")
    for name, plan in plans:
        table.add_row(name, plan.state, f"{plan.todo} of {plan.total}", _escape(plan.why))
    Console().print(table)


def print_table(title: str, rows: Sequence[Sequence[str]]) -> None:
    """Rows of texts, the head first."""
    console = Console()
    if not console.is_terminal:
        console.width = WIDE
    head, *body = (list(row) for row in rows)
    console.print(_figures(title, head, body))


def print_metrics(metrics: PoseMetrics) -> None:
    """Pose errors as a table."""
    table = _table("poses against the reference", "figure", "value")
    for name, value in metrics.as_dict().items():
        table.add_row(name.replace("_", " "), _text(value))
    Console().print(table)


def _figures(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of names and numbers, as narrow as can be."""
    table = Table(title=_escape(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(head):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(_escape, row))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=_escape(title), title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        more = f" and {len(value) - SHOWN} more" if len(value) > SHOWN else ""
        return _escape(", ".join(map(str, value[:SHOWN])) + more) or "none"
    return _escape(str(value))


def _escape(text: str) -> str:
    return escape(text)  # rich would read brackets as markup, and a backslash before one as escape
