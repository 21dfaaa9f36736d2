"""Line charts as SVG text, without any library; equal input gives equal text.

Every colour is a CSS variable with a default beside it: alone the chart is dark on transparent, and
a page with a theme of its own recolours it. A screen reader finds a title for the
chart and the name of each curve.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Curve = Mapping[str, float]
"""Position on the x axis (a number as text, as JSON keys are) -> value."""

Range = tuple[float, float]

PALETTE = (
    *("#1f6fb4", "#d9730d", "#2e8b57", "#b8336a", "#7b5ea7"),
    *("#8c6239", "#c23b8e", "#5f6b73", "#8a8a00", "#128a96"),
)
"""Defaults of --series-0 to --series-9; curves beyond them are dashed, then dotted."""

DASHES = ("", "6 3", "2 3")
PANEL_WIDTH, PANEL_HEIGHT = 320, 260
LEGEND_COLUMNS, LEGEND_ROW = 3, 18
GAP = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The plot area of a chart in SVG units, and the ranges of data that it spans."""

    x: Range
    y: Range
    left: float = 52
    top: float = 26
    width: float = PANEL_WIDTH - 66
    height: float = PANEL_HEIGHT - 74

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the data lies in the SVG."""
        across = (x - self.x[0]) / max(self.x[1] - self.x[0], GAP)
        up = (y - self.y[0]) / max(self.y[1] - self.y[0], GAP)
        return self.left + self.width * across, self.top + self.height * (1 - up)

    def axes(self, xlabel: str, ylabel: str, title: str = "") -> str:
        """Grid lines, numbers and labels."""
        parts = []
        for value in ticks(*self.y):
            y = self.at(self.x[0], value)[1]
            parts.append(line((self.left, y), (self.left + self.width, y), "grid"))
            parts.append(text((self.left - 6, y + 4), number(value), anchor="end"))
        for value in ticks(*self.x):
            x = self.at(value, self.y[0])[0]
            parts.append(line((x, self.top), (x, self.top + self.height), "grid"))
            parts.append(text((x, self.top + self.height + 16), number(value)))
        middle = self.left + self.width / 2, self.top + self.height / 2
        parts.append(text((middle[0], self.top + self.height + 34), xlabel))
        turn = f' transform="rotate(-90 12 {middle[1]:.1f})"'
        parts.append(text((12, middle[1]), ylabel, extra=turn))
        if title:
            parts.append(text((middle[0], self.top - 10), title, weight="600"))
        return "".join(parts)


def draw_curves(
    panels: Mapping[str, Mapping[str, Curve]],
    *,
    xlabel: str,
    ylabel: str,
    y: Range | None = (0.0, 1.0),
    columns: int = 3,
) -> str:
    """Panels side by side with one legend.

    Args:
        panels: title -> label -> curve.
        y: range of the y axis, shared by all panels; None: that of the data, from 0 on.
        columns: panels in a row.
    """
    labels = list(dict.fromkeys(label for curves in panels.values() for label in curves))
    values = [v for curves in panels.values() for c in curves.values() for v in c.values()]
    span = y or (0.0, max([v for v in values if math.isfinite(v)] or [1.0]) * 1.05)
    across = max(1, min(columns, len(panels)))
    rows = -(-len(panels) // across)
    width = across * PANEL_WIDTH
    body = []
    for place, (title, curves) in enumerate(panels.items()):
        left, top = place % across * PANEL_WIDTH, place // across * PANEL_HEIGHT
        inner = _panel(title, curves, labels, span, xlabel, ylabel)
        body.append(f'<g transform="translate({left} {top})">{inner}</g>')
    body.append(_legend(labels, width, rows * PANEL_HEIGHT))
    per_row = max(1, min(LEGEND_COLUMNS, width // 200))
    height = rows * PANEL_HEIGHT + LEGEND_ROW * -(-len(labels) // per_row) + 4
    return svg(width, height, f"{ylabel} over {xlabel}", "".join(body))


def _panel(
    title: str,
    curves: Mapping[str, Curve],
    labels: Sequence[str],
    span: Range,
    xlabel: str,
    ylabel: str,
) -> str:
    at = [float(key) for curve in curves.values() for key in curve]
    frame = Frame(x=(min(at, default=0.0), max(at, default=1.0)), y=span)
    parts = [frame.axes(xlabel, ylabel, title)]
    for label, curve in curves.items():
        points = [frame.at(float(x), v) for x, v in curve.items() if math.isfinite(v)]
        order = labels.index(label)
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) if points else ""
        dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points) if len(points) < 40 else ""
        style = f"fill:none;stroke:{series(order)}"
        parts.append(
            f'<g style="{style}"><title>{escape(label)}</title>'
            f'<path d="{path}" stroke-width="2" stroke-dasharray="{_dash(order)}"/>'
            f'<path d="{dots}" stroke-width="5" stroke-linecap="round"/></g>'
        )
    return "".join(parts)


def _legend(labels: Sequence[str], width: int, top: int) -> str:
    per_row = max(1, min(LEGEND_COLUMNS, width // 200))
    parts = []
    for order, label in enumerate(labels):
        x = 20 + order % per_row * (width - 20) / per_row
        y = top + order // per_row * LEGEND_ROW + 6
        stroke = f'style="stroke:{series(order)}" stroke-dasharray="{_dash(order)}"'
        parts.append(f'<path d="M{x:.0f} {y}h24" stroke-width="2.5" {stroke}/>')
        parts.append(text((x + 30, y + 4), label, anchor="start"))
    return "".join(parts)


def series(order: int) -> str:
    """The colour of the curve (or bars) of this order, as CSS."""
    color = order % len(PALETTE)
    return f"var(--series-{color},{PALETTE[color]})"


def _dash(order: int) -> str:
    return DASHES[order // len(PALETTE) % len(DASHES)]


def svg(width: float, height: float, title: str, body: str) -> str:
    """A whole SVG image; ``title`` is what a screen reader says."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" role="img" aria-label="{escape(title)}" '
        f'font-family="system-ui,sans-serif" font-size="12">{body}</svg>'
    )


def text(
    at: tuple[float, float],
    content: str,
    *,
    anchor: str = "middle",
    weight: str = "400",
    extra: str = "",
) -> str:
    """A line of text at its baseline; escaped."""
    return (
        f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" text-anchor="{anchor}" font-weight="{weight}" '
        f'style="fill:var(--ink-2,#444)"{extra}>{escape(content)}</text>'
    )


def line(start: tuple[float, float], end: tuple[float, float], kind: str) -> str:
    """A thin line; kind: the CSS variable of its colour, ``grid`` or ``ink-2``."""
    fallback = "#ddd" if kind == "grid" else "#444"
    (x, y), (u, v) = start, end
    return f'<path d="M{x:.1f} {y:.1f}L{u:.1f} {v:.1f}" style="stroke:var(--{kind},{fallback})"/>'


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round numbers (1, 2 or 5 times a power of ten) from ``low`` to ``high``."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 5) if m * power >= raw * 0.999), 10 * power)
    first = math.ceil(low / step - GAP)
    return [i * step for i in range(first, math.floor(high / step + GAP) + 1)]


def number(value: float) -> str:
    """A number as people write it on an axis: 0.5, 12, 4k, 1.5M."""
    for limit, suffix in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            return f"{value / (1e6 if suffix == 'M' else 1e3):.4g}{suffix}"
    return f"{value:.4g}"
