"""Curves as SVG text, drawn with matplotlib where it is installed (extra ``plot``)."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Mapping
from typing import Any

Curve = Mapping[str, float]
"""Position on the x axis (a number as text, as JSON keys are) -> value."""

COLORS = 10
"""Number of colours in matplotlib's default cycle; further methods are dashed, then dotted."""

LEGEND_COLUMNS = 4


def draw_curves(
    panels: Mapping[str, Mapping[str, Curve]], *, xlabel: str, ylabel: str
) -> str | None:
    """Draw panels side by side, with one y axis from 0 to 1 and one legend.

    Args:
        panels: Title of a panel -> label -> curve.
        xlabel: Label of the x axes.
        ylabel: Label of the y axis.

    Returns:
        SVG text, equal for equal input; None if matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return None
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "reconstruct", "svg.fonttype": "none"}):
        labels = list(next(iter(panels.values()), {}))
        height = 3.2 + 0.22 * -(-len(labels) // LEGEND_COLUMNS)  # inches: panels, then the legend
        figure = Figure(figsize=(3.6 * len(panels), height), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axis, (title, curves) in zip(axes, panels.items(), strict=True):
            for number, curve in enumerate(curves.values()):
                style = ("-", "--", ":")[number // COLORS % 3]
                x, y = [float(key) for key in curve], list(curve.values())
                axis.plot(x, y, style, color=f"C{number % COLORS}", marker=".")
            axis.set(title=title, xlabel=xlabel, ylim=(0, 1))
            axis.grid(alpha=0.3)
        axes[0].set_ylabel(ylabel)
        if labels:
            lines = list(axes[0].lines)
            figure.legend(lines, labels, loc="outside lower center", ncols=LEGEND_COLUMNS)
        return as_svg(figure)


def as_svg(figure: Any) -> str:
    """A matplotlib figure as SVG text without the XML header, to be embedded in a page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
