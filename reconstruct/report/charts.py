"""Histograms, residual fields, keypoint density, matches on photos, the match graph: as SVG.

Colours are CSS variables, as in `reconstruct.evaluation.plots`, so that they follow the page.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import hypot

import numpy as np

from reconstruct.evaluation.plots import Frame, number, series, svg, text
from reconstruct.report.content import (
    Density,
    Histogram,
    MatchGraph,
    MatchLine,
    PairFigure,
    ResidualField,
)
from reconstruct.report.figures import plain
from reconstruct.report.statistics import FIELD_COLUMNS

CLASSES_PX = (0.25, 0.5, 1.0, 2.0)
"""Upper limits of the classes of reprojection errors; a fifth is above them."""
CLASS_COLORS = ("#2c7bb6", "#7fc9dd", "#f4e66a", "#fd9a4b", "#d7191c")
"""Colour-blind safe (ColorBrewer RdYlBu): blue is good."""
NO_POINT = "#ffffff"
FIELD_WIDTH, FIELD_HEIGHT = 360, 300
ARROW = 0.7
"""Length of a large residual's arrow in cells."""
LARGE = 90.0
"""Percentile at which a residual is drawn that long; longer arrows are cut at the cell's side."""
DARK = 98.0
"""Percentile of keypoints in a cell at which the colour is full."""


def draw_histogram(chart: Histogram) -> str:
    """Bars; of two series the second is in front, half clear."""
    top = max((max(counts, default=0) for _, counts in chart.series), default=0)
    frame = Frame(x=(chart.edges[0], chart.edges[-1]), y=(0, max(top, 1) * 1.06))
    parts = [frame.axes(chart.xlabel, ""), text((4, 12), chart.ylabel, anchor="start")]
    for order, (label, counts) in enumerate(chart.series):
        bars = []
        for low, high, n in zip(chart.edges, chart.edges[1:], counts, strict=False):
            (x, y), (right, bottom) = frame.at(low, n), frame.at(high, 0)
            width, height = max(right - x - 1, 0.5), bottom - y
            tip = f"{number(low)} to {number(high)}: {n:,}"
            bars.append(
                f'<rect x="{x + 0.5:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}">'
                f"<title>{tip}</title></rect>"
            )
        clear = 0.75 if len(chart.series) > 1 else 0.9
        color = series(1 - order if len(chart.series) > 1 else 0)
        style = f"fill:{color};fill-opacity:{clear}"
        parts.append(f'<g style="{style}"><title>{escape(label)}</title>{"".join(bars)}</g>')
        if len(chart.series) > 1:
            y = frame.top - 14 + 16 * order
            x = frame.left + frame.width - 118
            parts.append(f'<rect x="{x}" y="{y}" width="11" height="11" style="{style}"/>')
            parts.append(text((x + 16, y + 10), label, anchor="start"))
    return svg(320, 260, f"{chart.title}: {chart.caption}", "".join(parts))


def draw_residuals(field: ResidualField) -> str:
    """An arrow a cell, all enlarged alike; the colour is the length."""
    scale = min(FIELD_WIDTH / field.size[0], FIELD_HEIGHT / field.size[1])
    width, height = field.size[0] * scale, field.size[1] * scale
    lengths = [hypot(u, v) for _, _, u, v, _ in field.cells]
    large = float(np.percentile(lengths, LARGE)) if lengths else 0.0
    cell = width / FIELD_COLUMNS
    enlarge = ARROW * cell / max(large, 1e-9)
    parts = []
    for x, y, u, v, n in field.cells:
        length = hypot(u, v)
        x, y = x * scale, y * scale
        drawn = enlarge * min(1, large / (ARROW * max(length, 1e-9)))
        tip = f"{length:.2f} px, {n:,} observations"
        parts.append(
            f'<g style="stroke:{error_color(length)};fill:{error_color(length)}">'
            f"<title>{tip}</title>"
            f'<path d="M{x:.1f} {y:.1f}l{u * drawn:.1f} {v * drawn:.1f}" stroke-width="2"/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1.8"/></g>'
        )
    # Arrows end at the border of the photo.
    inner = f'<svg width="{width:.1f}" height="{height:.1f}">{"".join(parts)}</svg>'
    told = f"{large:.2g} px"
    parts = [_border(width, height), inner]
    parts.append(
        f'<path d="M8 {height + 13:.1f}h{ARROW * cell:.1f}" stroke-width="2" '
        f'style="stroke:{error_color(large)}"/>'
        f'<circle cx="8" cy="{height + 13:.1f}" r="1.8" style="fill:{error_color(large)}"/>'
    )
    parts.append(text((14 + ARROW * cell, height + 17), told, anchor="start"))
    title = f"{field.title}: the longest arrows stand for {told} and more"
    return svg(FIELD_WIDTH, round(height) + 22, title, "".join(parts))


def _border(width: float, height: float) -> str:
    return (
        f'<rect x="1" y="1" width="{width - 2:.1f}" height="{height - 2:.1f}" '
        'style="fill:none;stroke:var(--grid,#ddd)"/>'
    )


def draw_density(chart: Density) -> str:
    """Cells, the darker the more keypoints."""
    rows, columns = len(chart.rows), len(chart.rows[0])
    height = min(FIELD_WIDTH / chart.aspect, FIELD_HEIGHT) / rows
    width = height * rows * chart.aspect / columns
    most = max(float(np.percentile(chart.rows, DARK)), 1)
    parts = []
    for r, row in enumerate(chart.rows):
        for c, n in enumerate(row):
            if n:
                place = f'x="{c * width:.1f}" y="{r * height:.1f}"'
                share = f'fill-opacity="{min(n / most, 1):.2f}"'
                parts.append(f'<rect {place} width="{width:.1f}" height="{height:.1f}" {share}/>')
    body = f'<g style="fill:{series(0)}">{"".join(parts)}</g>'
    frame = _border(width * columns, height * rows)
    return svg(FIELD_WIDTH, round(height * rows), chart.title, body + frame)


def draw_matches(figure: PairFigure) -> str:
    """Two photos of one height side by side and the matches between them."""
    height = 300.0
    scales = height / figure.left.height, height / figure.right.height
    widths = figure.left.width * scales[0], figure.right.width * scales[1]
    start = widths[0] + 6
    parts = [
        f'<image href="{figure.left.data}" width="{widths[0]:.1f}" height="{height:g}" '
        'preserveAspectRatio="none"/>',
        f'<image href="{figure.right.data}" x="{start:.1f}" width="{widths[1]:.1f}" '
        f'height="{height:g}" preserveAspectRatio="none"/>',
    ]
    for color, lines in _by_color(figure.lines, figure.failed):
        path, dots = [], []
        for m in lines:
            x, y = m.left[0] * scales[0], m.left[1] * scales[0]
            u, v = start + m.right[0] * scales[1], m.right[1] * scales[1]
            path.append(f"M{x:.0f} {y:.0f}L{u:.0f} {v:.0f}")
            dots.append(f"M{x:.0f} {y:.0f}h0M{u:.0f} {v:.0f}h0")
        parts.append(
            f'<path d="{"".join(path)}" stroke="{color}" stroke-width="0.8" opacity="0.65"/>'
            f'<path d="{"".join(dots)}" stroke="{color}" stroke-width="3.5" '
            'stroke-linecap="round"/>'
        )
    title = f"{figure.left.name} and {figure.right.name}: {figure.caption}"
    return svg(round(start + widths[1]), height, title, "".join(parts))


def _by_color(lines: Sequence[MatchLine], failed: bool) -> list[tuple[str, list[MatchLine]]]:
    """The worst last, which is on top."""
    groups: dict[str, list[MatchLine]] = {color: [] for color in (NO_POINT, *CLASS_COLORS)}
    for match in lines:
        groups[NO_POINT if match.error_px is None else error_color(match.error_px)].append(match)
    if failed:
        groups = {"#ff5d5d": list(lines)}
    return [(color, matches) for color, matches in groups.items() if matches]


def error_color(error_px: float) -> str:
    """Colour of the class of a reprojection error."""
    place = sum(error_px > limit for limit in CLASSES_PX)
    return CLASS_COLORS[place]


def error_legend() -> list[tuple[str, str]]:
    """Colour and text of each class."""
    texts = [f"up to {limit:g} px" for limit in CLASSES_PX]
    texts.append(f"above {CLASSES_PX[-1]:g} px")
    return [*zip(CLASS_COLORS, texts, strict=True), (NO_POINT, "no 3D point")]


def draw_graph(graph: MatchGraph) -> str:
    """Cameras from above with their verified pairs, over the points."""
    side = 480
    parts = []
    if graph.plan:
        parts.append(f'<image href="{graph.plan}" width="{side}" height="{side}" opacity="0.8"/>')
    for a, b, matches in graph.edges:
        (x, y), (u, v) = graph.nodes[a].at, graph.nodes[b].at
        strength = (matches / graph.most) ** 0.5
        place = f"M{x * side:.0f} {y * side:.0f}L{u * side:.0f} {v * side:.0f}"
        style = f"stroke-width:{0.4 + 2.2 * strength:.1f};opacity:{0.12 + 0.6 * strength:.2f}"
        parts.append(f'<path d="{place}" style="{style}"/>')
    edges = f'<g style="stroke:{series(0)}">{"".join(parts)}</g>'
    nodes = "".join(
        f'<circle cx="{n.at[0] * side:.1f}" cy="{n.at[1] * side:.1f}" r="{7 if n.cut else 4.5}" '
        f'style="fill:{series(3 if n.cut else 1)};stroke:var(--paper,#fff)" '
        f'data-photo="{n.photo}"><title>{escape(n.name)}</title></circle>'
        for n in graph.nodes
    )
    told = f"{len(graph.nodes)} photos from above, {len(graph.edges)} verified pairs"
    return svg(side, side, told, edges + nodes)


def draw_heat(graph: MatchGraph) -> str:
    """Photos by photos, the stronger the colour the more verified matches."""
    side = 480
    frame = f'<rect width="{side}" height="{side}" style="fill:none;stroke:var(--grid,#ddd)"/>'
    picture = (
        f'<image href="{graph.heat}" width="{side}" height="{side}" '
        'style="image-rendering:pixelated"/>'
    )
    told = f"Verified matches of {plain(len(graph.names))} by {plain(len(graph.names))} photos"
    return svg(side, side, told, picture + frame)
