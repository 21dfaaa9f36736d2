"""GPS positions of photos, against where the model puts the cameras."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import numpy as np

from reconstruct import colmap
from reconstruct.datasets.gps import GpsPosition
from reconstruct.errors import EstimationError
from reconstruct.evaluation.plots import Frame, series, svg, text
from reconstruct.evaluation.poses import similarity
from reconstruct.geometry import Float64

LEAST = 4
"""Fewest photos with a position for an alignment that says something: three always fit."""
PLAN_WIDTH, PLAN_MARGIN = 640, 74
FURTHEST = 20
"""Rows of the table."""


def gps_residuals_m(
    positions: Mapping[str, GpsPosition], centers: Mapping[str, Float64]
) -> dict[str, float]:
    """Photo -> distance between GPS and camera after the best similarity, for a run that did not
    align its model with GPS; empty if undetermined."""
    common = sorted(set(positions) & set(centers))
    if len(common) < LEAST:
        return {}
    found = [positions[name] for name in common]
    rows = np.array([(p.latitude, p.longitude, p.altitude or 0.0) for p in found])
    target = colmap.east_north_up(rows, tuple(np.median(rows, axis=0).tolist()))
    source = np.array([centers[name] for name in common])
    try:
        scale, rotation, translation = similarity(source, target)
    except EstimationError:  # all on one line
        return {}
    away = scale * source @ rotation.T + translation - target
    return dict(zip(common, np.linalg.norm(away, axis=1).tolist(), strict=True))


def aligned_residuals_m(gps: Mapping[str, Any]) -> dict[str, float]:
    """Photo -> distance between GPS and camera in a model that was aligned with GPS."""
    found: Mapping[str, list[float]] = gps["models"][0].get("residuals_m", {})
    return {name: float(np.linalg.norm(row)) for name, row in found.items()}


def up_of(gps: Mapping[str, Any] | None, number: int = 0) -> Float64 | None:
    """Up in a model that was aligned with GPS (x to the east, y to the north); None in others."""
    models = gps["models"] if gps else []
    aligned = number < len(models) and models[number]["aligned"]
    return np.array([0.0, 0.0, 1.0]) if aligned else None


def gps_tables(gps: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    """Title -> rows of text, the first of them the head."""
    rows = [["model", "photos with GPS", "far off", "RMS in plan [m]", "RMS of altitudes [m]"]]
    for number, found in enumerate(gps["models"], 1):
        if found["aligned"]:
            cells = [str(len(found["outliers"])), f"{found['rms_horizontal_m']:.2f}"]
            cells.append(f"{found['rms_vertical_m']:.2f}")
        else:
            cells = ["not aligned: " + found["why"], "", ""]
        rows.append([str(number), str(found["photos"]), *cells])
    residuals = gps["models"][0].get("residuals_m", {})
    if not residuals:
        return {"Agreement with GPS": rows}
    outliers = set(gps["models"][0]["outliers"])
    furthest = sorted(residuals, key=lambda name: -float(np.linalg.norm(residuals[name])))
    table = [["photo", "east [m]", "north [m]", "up [m]", ""]]
    for name in furthest[:FURTHEST]:
        cells = [f"{value:+z.2f}" for value in residuals[name]]
        table.append([name, *cells, "far off: not counted" if name in outliers else ""])
    return {"Agreement with GPS": rows, "From GPS to the model, the furthest photos": table}


def draw_plan(gps: Mapping[str, Any], centers: Mapping[str, Float64]) -> str | None:
    """The cameras from above, each with a line to where its GPS says, as SVG; far off ones without.

    None where the model was not aligned.
    """
    found = gps["models"][0]
    if not found["aligned"]:
        return None
    names = sorted(set(found["residuals_m"]) & set(centers))
    camera = np.array([centers[name][:2] for name in names]).reshape(-1, 2)
    measured = camera - np.array([found["residuals_m"][n][:2] for n in names]).reshape(-1, 2)
    far = np.array([name in set(found["outliers"]) for name in names], np.bool_)
    seen = np.concatenate([camera, measured[~far]])
    low, high = seen.min(0), seen.max(0)
    size = np.maximum(high - low, 1e-3 + 0.2 * np.ptp(seen, axis=0).max())
    low, high = (low + high - 1.08 * size) / 2, (low + high + 1.08 * size) / 2
    width = PLAN_WIDTH - 66
    height = width * float((high - low)[1] / (high - low)[0])
    x, y = ((float(a), float(b)) for a, b in zip(low, high, strict=True))
    frame = Frame(x=x, y=y, width=width, height=height)
    parts = [frame.axes("east [m]", "north [m]")]
    for name, at, to, away in zip(names, camera, measured, far, strict=True):
        (cx, cy), (gx, gy) = frame.at(*at), frame.at(*to)
        told = "/".join(f"{v:+z.1f}" for v in found["residuals_m"][name])
        line = "" if away else f'<path d="M{cx:.1f} {cy:.1f}L{gx:.1f} {gy:.1f}"/>'
        color = series(1 if away else 0)
        parts.append(
            f'<g style="stroke:{color};fill:{color}"><title>{escape(name)}: {told} m east/north/up'
            f'</title>{line}<circle cx="{cx:.1f}" cy="{cy:.1f}" r="2.5"/></g>'
        )
    caption = "dots: cameras; lines: to their GPS"
    if far.any():
        caption += "; orange: GPS far off, not counted"
    parts.append(text((frame.left, 14), caption, anchor="start"))
    return svg(PLAN_WIDTH, height + PLAN_MARGIN, "Cameras and GPS from above", "".join(parts))
