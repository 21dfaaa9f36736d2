"""Distributions of a model: reprojection errors, angles, tracks, residuals over the image plane."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from reconstruct.colmap import ModelArrays
from reconstruct.geometry import Float64
from reconstruct.report.content import Density, Histogram, ResidualField

BINS = 24
ANGLES_OF = 20_000
"""Points whose triangulation angle is computed, taken evenly."""
ANGLE_VIEWS = 24
"""Photos of a track that count for its angle."""
FIELD_COLUMNS = 14
FIELD_LEAST = 5
"""A cell of the image plane with fewer observations is left out: its median says nothing."""
CAMERAS_SHOWN = 4


def errors_px(model: ModelArrays) -> Float64:
    """(O,) reprojection error of each observation."""
    return np.asarray(np.linalg.norm(model.xy - model.projections(), axis=1))


def errors_before(
    model: ModelArrays, found: Callable[[str], NDArray[np.float32] | None]
) -> tuple[Float64, Float64] | None:
    """Reprojection errors of observations at the keypoints as the extractor found them, and after.

    found: image name -> (N, 2), or None where there are none or they are not those of the model.
    None if no image has any, or if no keypoint moved.
    """
    before = np.full((len(model.xy), 2), np.nan)
    for name, own in zip(model.names, model.slices(), strict=True):
        keypoints = found(name)
        if keypoints is not None:
            index = model.keypoint[own]
            known = index < len(keypoints)
            before[own][known] = keypoints[index[known]]
    known = ~np.isnan(before).any(axis=1)
    if not known.any() or np.abs(before[known] - model.xy[known]).max() < 1e-3:
        return None
    projected = model.projections()[known]
    raw = np.linalg.norm(before[known] - projected, axis=1)
    return raw, np.linalg.norm(model.xy[known] - projected, axis=1)


def triangulation_angles_deg(model: ModelArrays) -> Float64:
    """The largest angle between two rays of each point, of at most `ANGLES_OF` points."""
    order = np.argsort(model.point, kind="stable")
    lengths = np.bincount(model.point, minlength=len(model.xyz))
    starts = np.cumsum(lengths) - lengths
    points = np.flatnonzero(lengths >= 2)
    points = points[:: max(1, -(-len(points) // ANGLES_OF))]
    angles = np.zeros(len(points))
    used = np.minimum(lengths[points], ANGLE_VIEWS)
    for views in np.unique(used):
        own = np.flatnonzero(used == views)
        rows = order[starts[points[own], None] + np.arange(views)]
        rays = model.xyz[points[own], None] - model.centers[model.image[rows]]
        rays /= np.maximum(np.linalg.norm(rays, axis=2, keepdims=True), 1e-12)
        cosines = np.einsum("pia,pja->pij", rays, rays).reshape(len(own), -1).min(axis=1)
        angles[own] = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    return angles


def histogram(
    title: str,
    xlabel: str,
    caption: str,
    series: Mapping[str, NDArray[np.generic]],
    *,
    ylabel: str = "",
    whole: bool = False,
) -> Histogram:
    """Bins of equal width from 0 to the 99th percentile; what lies beyond is in the last one.

    ylabel: what is counted; by default the first series' name. whole: the values are counts; a bin
    spans whole numbers, and the first begins at the smallest.
    """
    everything = np.concatenate([np.asarray(v, np.float64) for v in series.values()])
    everything = everything[np.isfinite(everything)]
    high = float(np.percentile(everything, 99)) if len(everything) else 1.0
    low = float(everything.min()) if whole and len(everything) else 0.0
    if whole:
        step = max(1, int(np.ceil((high - low + 1) / BINS)))
        edges = np.arange(low, high + step + 0.5, step) - 0.5
    else:
        edges = np.linspace(0, max(high, 1e-9), BINS + 1)
    counts = []
    for label, values in series.items():
        finite = np.asarray(values, np.float64)
        finite = np.clip(finite[np.isfinite(finite)], edges[0], np.nextafter(edges[-1], 0))
        counts.append((label, tuple(np.histogram(finite, edges)[0].tolist())))
    return Histogram(
        title=title,
        xlabel=xlabel,
        ylabel=ylabel or next(iter(series)),
        caption=caption,
        edges=tuple(float(f"{edge:.6g}") for edge in edges),
        series=tuple(counts),
    )


def residual_fields(model: ModelArrays) -> tuple[ResidualField, ...]:
    """Median residual over the image plane, for the cameras with most observations."""
    residuals = model.xy - model.projections()
    by_camera: dict[int, list[int]] = {}
    for i, camera in enumerate(model.cameras):
        by_camera.setdefault(int(camera.camera_id), []).append(i)
    counts = np.bincount(model.image, minlength=len(model.names))
    largest = sorted(by_camera, key=lambda c: -int(counts[by_camera[c]].sum()))[:CAMERAS_SHOWN]
    fields = []
    for camera_id in largest:
        own = np.isin(model.image, by_camera[camera_id]) & np.isfinite(residuals).all(axis=1)
        camera = model.cameras[by_camera[camera_id][0]]
        size = (int(camera.width), int(camera.height))
        images = len(by_camera[camera_id])
        shared = "" if images > 1 else f" ({model.names[by_camera[camera_id][0]]})"
        fields.append(
            ResidualField(
                title=f"Camera {camera_id}{shared}",
                caption=f"{camera.model.name}, {images} photo{'s' * (images > 1)}, "
                f"{int(own.sum()):,} observations",
                size=size,
                cells=_cells(model.xy[own], residuals[own], size),
            )
        )
    return tuple(fields)


def _cells(
    xy: Float64, residuals: Float64, size: tuple[int, int]
) -> tuple[tuple[float, float, float, float, int], ...]:
    side = size[0] / FIELD_COLUMNS
    rows = max(1, round(size[1] / side))
    column = np.clip((xy[:, 0] / side).astype(int), 0, FIELD_COLUMNS - 1)
    row = np.clip((xy[:, 1] / (size[1] / rows)).astype(int), 0, rows - 1)
    cell = row * FIELD_COLUMNS + column
    count = np.bincount(cell, minlength=rows * FIELD_COLUMNS)
    by_cell = np.split(residuals[np.argsort(cell, kind="stable")], np.cumsum(count)[:-1])
    result = []
    for i in np.flatnonzero(count >= FIELD_LEAST).tolist():
        middle = (i % FIELD_COLUMNS + 0.5) * side, (i // FIELD_COLUMNS + 0.5) * size[1] / rows
        x, y = np.median(by_cell[i], axis=0).tolist()
        result.append((round(middle[0], 1), round(middle[1], 1), x, y, int(count[i])))
    return tuple(result)


def density(
    keypoints: Mapping[str, NDArray[np.float32]], sizes: Mapping[str, tuple[int, int]]
) -> Density | None:
    """Keypoints of all photos over a common image plane."""
    columns, rows = 30, 20
    total = np.zeros((rows, columns), np.int64)
    for name, xy in keypoints.items():
        if len(xy):
            width, height = sizes[name]
            span = [[0, height], [0, width]]
            total += np.histogram2d(xy[:, 1], xy[:, 0], (rows, columns), span)[0].astype(np.int64)
    if not total.any():
        return None
    width, height = np.median(np.array(list(sizes.values())), axis=0)
    return Density(
        title="Keypoints over the image plane",
        caption=f"{int(total.sum()):,} keypoints of {len(keypoints):,} photos laid over each other",
        aspect=float(width / height),
        rows=tuple(tuple(row) for row in total.tolist()),
    )
