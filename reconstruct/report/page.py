"""report.html: the summary of a run with a picture of the model, one file without scripts."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from reconstruct import colmap
from reconstruct.geometry import Float64, projection_center
from reconstruct.stages import Summary
from reconstruct.workspace import Workspace, atomic_path

MAX_POINTS = 4000
SIDE = 640

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:1rem 0}td,th{border-bottom:1px solid #ddd;padding:.2rem .8rem;
text-align:left;vertical-align:top}svg{border:1px solid #ddd}pre{background:#f6f6f6;padding:1rem}"""


def write_report(workspace: Workspace, summary: Summary, config: dict[str, Any]) -> None:
    """Write report.html: figures, what was skipped, the model seen from above, the settings."""
    figures = [
        [stage, name.replace("_", " "), value]
        for stage, values in summary.figures.items()
        for name, value in values.items()
    ]
    parts = [
        f"<h1>{html.escape(str(config.get('name', 'run')))}</h1>",
        _table(["stage", "figure", "value"], figures),
    ]
    for title, (head, *rows) in summary.tables.items():
        parts += [f"<h2>{html.escape(title)}</h2>", _table(head, [list(row) for row in rows])]
    parts += [f"<h2>{html.escape(t)}</h2>{svg}" for t, svg in summary.drawings.items()]
    if summary.skipped:
        rows = [[name, why] for name, why in summary.skipped.items()]
        parts += ["<h2>Skipped</h2>", _table(["what", "why"], rows)]
    if workspace.sparse.is_dir():
        drawing = draw_from_above(colmap.read_model(workspace.sparse))
        parts += ["<h2>The model from above</h2>", drawing]
    settings = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    parts += ["<h2>Settings</h2>", f"<pre>{html.escape(settings)}</pre>"]
    page = (
        f"<!doctype html><meta charset=utf-8><title>reconstruct</title><style>{STYLE}</style>"
        + "\n".join(parts)
    )
    with atomic_path(workspace.report) as temporary:
        temporary.write_text(page, encoding="utf-8")


def draw_from_above(model: colmap.Reconstruction) -> str:
    """SVG of points (grey) and cameras (red, with the way they look), along the mean up axis."""
    poses = list(colmap.model_poses(model).values())
    if not poses:
        return "<p>no image is registered</p>"
    plane = _ground_axes(poses)
    centers = np.array([projection_center(pose) for pose in poses]) @ plane.T
    ahead = np.array([pose[2, :3] for pose in poses]) @ plane.T
    points = colmap.model_points(model)
    points = points[:: max(1, len(points) // MAX_POINTS)] @ plane.T
    shown = np.vstack([centers, points])
    low, high = np.percentile(shown, 1, axis=0), np.percentile(shown, 99, axis=0)
    low, high = np.minimum(low, centers.min(0)), np.maximum(high, centers.max(0))
    scale = (SIDE - 40) / max(float((high - low).max()), 1e-9)

    def place(xy: NDArray[Any]) -> Float64:
        return np.asarray((xy - (low + high) / 2) * scale + SIDE / 2)

    dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1"/>' for x, y in place(points))
    cameras = "".join(
        f'<path d="M{x:.1f} {y:.1f}l{12 * u:.1f} {12 * v:.1f}"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
        for (x, y), (u, v) in zip(place(centers), ahead, strict=True)
    )
    return (
        f'<svg viewBox="0 0 {SIDE} {SIDE}" width="{SIDE}" height="{SIDE}">'
        f'<g fill="#999">{dots}</g><g fill="#c00" stroke="#c00">{cameras}</g></svg>'
    )


def _ground_axes(poses: list[NDArray[np.float64]]) -> Float64:
    """(2, 3) axes of the plane across the cameras' mean up direction: right, and ahead (up)."""
    down = np.mean([pose[1, :3] for pose in poses], axis=0)
    right = np.mean([pose[0, :3] for pose in poses], axis=0)
    down = down / max(np.linalg.norm(down), 1e-9)
    right = right - down * (right @ down)
    if np.linalg.norm(right) < 1e-3:  # cameras all around: any axis will do
        right = np.cross(down, np.eye(3)[int(np.argmin(np.abs(down)))])
    right = right / np.linalg.norm(right)
    return np.array([right, np.cross(right, down) * -1])


def _table(head: list[str], rows: list[list[Any]]) -> str:
    def cells(row: list[Any], tag: str) -> str:
        return "".join(f"<{tag}>{html.escape(_text(cell))}</{tag}>" for cell in row)

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<table><tr>{cells(head, 'th')}</tr>{body}</table>"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)
