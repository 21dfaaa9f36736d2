"""The page of a report: HTML in one file, from `ReportContent` alone.

Whatever a name holds stays text: the template escapes everything but the SVG that is drawn here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from reconstruct.report import charts
from reconstruct.report.content import ModelView, PhotoRow, ReportContent
from reconstruct.report.figures import duration

TEMPLATES = "templates"
UNIT = re.compile(r"(\d) (px\b|mm\b|cm\b|m\b|%)")
"""Where a number and its unit must not be parted by the end of a line."""


def render(content: ReportContent) -> str:
    """The HTML text. Equal content gives equal text."""
    environment = Environment(
        loader=PackageLoader("reconstruct.report", TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": duration,
        "units": lambda text: UNIT.sub("\\1\u00a0\\2", text),
        "breaks": lambda key: Markup(re.sub(r"([._])", r"\1<wbr>", str(escape(key)))),
        "numbers": numbers,
        "head": head,
        "histogram": _drawn(charts.draw_histogram),
        "residuals": _drawn(charts.draw_residuals),
        "density": _drawn(charts.draw_density),
        "matches": _drawn(charts.draw_matches),
        "graph": _drawn(charts.draw_graph),
        "heat": _drawn(charts.draw_heat),
        "drawing": Markup,
    }
    own = files("reconstruct.report")
    return environment.get_template("report.html").render(
        content=content,
        style=Markup((own / "style.css").read_text(encoding="utf-8")),
        scripts=[Markup((own / n).read_text(encoding="utf-8")) for n in ("page.js", "viewer.js")],
        scene=scene_json(content.models, content.photos),
        legend=charts.error_legend(),
        columns=photo_columns(content.photos),
    )


NUMBER = re.compile(
    r"[-+]?[\d,]*\.?\d+(e[-+]?\d+)?( ?%|°| (mm|cm|m|s)| of [\d,]+)?"
    r"|\d+ (h|min) \d+ (min|s)|-|failed|"
)
"""What a cell holds that is a number, or stands for one."""


def numbers(rows: Sequence[Sequence[str]]) -> list[bool]:
    """Which columns after the first hold numbers alone, and so stand flush right."""
    columns = zip(*rows, strict=True)
    return [i > 0 and all(map(NUMBER.fullmatch, column)) for i, column in enumerate(columns)]


def head(cell: str) -> str:
    """The head of a column for people, with its unit: "5" -> "5 px", "median deg" -> "median [°]".

    Heads that are numbers are thresholds of benchmarks, in pixels.
    """
    if re.fullmatch(r"[\d.]+", cell):
        return f"{cell}\u00a0px"
    if found := re.fullmatch(r"(\D+) (m|px|deg|°|%)", cell):
        return f"{found[1]} [{found[2].replace('deg', '°')}]"
    return UNIT.sub("\\1\u00a0\\2", re.sub(r"(\d) deg\b", r"\1°", cell))


def _drawn(draw: Any) -> Any:
    return lambda value: Markup(draw(value))


def scene_json(models: tuple[ModelView, ...], photos: tuple[PhotoRow, ...]) -> Markup:
    """What the viewer reads, as JSON that cannot end its script element, whatever names hold."""
    told = {"models": [asdict(model) for model in models], "photos": len(photos)}
    text = json.dumps(told, separators=(",", ":"), ensure_ascii=True)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


COLUMNS = (
    ("keypoints", "keypoints", "{:,}"),
    ("matched", "matched photos", "{:,}"),
    ("observations", "observations", "{:,}"),
    ("error_px", "error [px]", "{:.2f}"),
    ("position_uncertainty_percent", "position ± [% of extent]", "{:.2g}"),
    ("focal_prior", "focal prior [px]", "{:,.1f}"),
    ("focal", "focal final [px]", "{:,.1f}"),
    ("gps_m", "GPS residual [m]", "{:,.2f}"),
)
"""Field of `PhotoRow`, head of its column, and how its numbers are written."""


def photo_columns(photos: tuple[PhotoRow, ...]) -> list[tuple[str, str, str]]:
    """The columns in which any photo has a number."""
    return [c for c in COLUMNS if any(getattr(photo, c[0]) is not None for photo in photos)]
