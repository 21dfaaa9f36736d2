"""What a run says in the terminal: its verdict and figures, a plan, pose errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reconstruct.evaluation.poses import PoseMetrics
from reconstruct.report.figures import SHOWN, duration, figure, figure_texts
from reconstruct.report.verdict import Verdict, verdict
from reconstruct.stages import Plan, Summary

WIDE = 170
"""Columns where the output is no terminal."""
STYLES = {"good": "bold green", "partial": "bold yellow", "bad": "bold red"}


def print_summary(output: Path, summary: Summary) -> None:
    """The verdict, tables, figures of each stage, what was skipped and why, the report's path.

    What is as it should be is printed plainly, the rest in colour.
    """
    console = _console()
    print_verdict(verdict(summary))
    for title, (head, *rows) in summary.tables.items():
        console.print(_figures(title, head, rows))
    console.print(_stages(summary))
    if summary.skipped:
        console.print(_skipped(summary))
    print_page(output / "report.html")


def print_verdict(found: Verdict) -> None:
    """The outcome in a sentence, and what is to be said of it."""
    console = _console()
    console.print(_escape(found.headline), style=STYLES[found.level])
    for note in found.notes:
        console.print(f"  {_escape(note)}", style="yellow")


def print_page(path: Path) -> None:
    """Where the page is, if it is there."""
    if path.is_file():
        _console().print(_escape(str(path)), soft_wrap=True)


def _stages(summary: Summary) -> Table:
    seconds = summary.seconds
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(style="dim", overflow="fold")
    table.add_column(style="dim", justify="right", no_wrap=True)
    for stage in dict.fromkeys([*summary.figures, *seconds]):
        shown = figure_texts(summary.figures.get(stage, {}))
        figures = [" ".join(texts) for texts in shown.values()]
        time = duration(seconds[stage]) if stage in seconds else ""
        table.add_row(_escape(stage), _escape(", ".join(figures)), time)
    return table


def _skipped(summary: Summary) -> Table:
    table = _table("skipped", "what", "why")
    for name, reason in list(summary.skipped.items())[:SHOWN]:
        table.add_row(_escape(name), _escape(reason), style="yellow")
    if len(summary.skipped) > SHOWN:
        table.add_row("...", f"and {len(summary.skipped) - SHOWN} more, see log.txt")
    return table


def print_plan(plans: Sequence[tuple[str, Plan]]) -> None:
    """One line a stage: state, how much is to do, and why."""
    table = _table("plan", "stage", "state", "to do", "why")
    for name, plan in plans:
        table.add_row(name, plan.state, f"{plan.todo} of {plan.total}", _escape(plan.why))
    Console().print(table)


def print_table(title: str, rows: Sequence[Sequence[str]]) -> None:
    """Rows of texts, the head first."""
    console = _console()
    head, *body = (list(row) for row in rows)
    console.print(_figures(title, head, body))


def print_metrics(metrics: PoseMetrics) -> None:
    """Pose errors as a table."""
    table = _table("poses against the reference", "figure", "value")
    for name, value in metrics.as_dict().items():
        label, told = figure(name, value)
        table.add_row(label, _escape(told))
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


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDE
    return console


def _escape(text: str) -> str:
    return escape(text)  # rich would read brackets as markup, and a backslash before one as escape
