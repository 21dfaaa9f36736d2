"""How well queries are localized: shares within thresholds, medians; numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.geometry import projection_center, rotation_angle_deg

Threshold = tuple[float, float]
"""Largest position error (in the unit of the poses, metres) and rotation error in degrees."""

THRESHOLDS: tuple[Threshold, ...] = ((0.25, 2.0), (0.5, 5.0), (5.0, 10.0))
"""Of visuallocalization.net for Aachen Day-Night."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalizationMetrics:
    """Of a group of queries.

    within_percent: share of all queries within each threshold, both errors at most the limit.
    Medians are over all queries, a failed one counting as infinite; None if that is the median.
    """

    queries: int
    localized: int
    within_percent: dict[str, float]
    position_median: float | None
    rotation_median_deg: float | None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {name: getattr(self, name) for name in self.__slots__}


def query_errors(
    estimated: Mapping[str, NDArray[Any]], truth: Mapping[str, NDArray[Any]]
) -> dict[str, tuple[float, float]]:
    """Query -> (distance of camera centres, rotation error in degrees); infinite without a pose.

    Both map names to (3, 4) cam_from_world in one frame; ``truth`` decides which queries count.
    """
    errors = {}
    for name, pose in truth.items():
        found = estimated.get(name)
        if found is None:
            errors[name] = (float("inf"), float("inf"))
        else:
            distance = np.linalg.norm(projection_center(found) - projection_center(pose))
            errors[name] = float(distance), rotation_angle_deg(found[:, :3] @ pose[:, :3].T)
    return errors


def localization_metrics(
    errors: Sequence[tuple[float, float]], thresholds: Sequence[Threshold] = THRESHOLDS
) -> LocalizationMetrics:
    """Metrics of (position, rotation) errors; no query at all gives 0 % and no medians."""
    table = np.array(errors, np.float64).reshape(-1, 2)
    within = {}
    for position, degrees in thresholds:
        good = (table[:, 0] <= position) & (table[:, 1] <= degrees)
        share = 100.0 * float(good.mean()) if len(table) else 0.0
        within[threshold_name((position, degrees))] = share
    medians = [float(np.median(column)) if len(column) else float("inf") for column in table.T]
    return LocalizationMetrics(
        queries=len(table),
        localized=int(np.isfinite(table).all(axis=1).sum()),
        within_percent=within,
        position_median=medians[0] if np.isfinite(medians[0]) else None,
        rotation_median_deg=medians[1] if np.isfinite(medians[1]) else None,
    )


def threshold_name(threshold: Threshold) -> str:
    """E.g. ``0.25 m, 2 deg``."""
    return f"{threshold[0]:g} m, {threshold[1]:g} deg"


def grouped_metrics(
    errors: Mapping[str, tuple[float, float]],
    groups: Mapping[str, str],
    thresholds: Sequence[Threshold],
) -> dict[str, LocalizationMetrics]:
    """``all``, and each group by name where there are several. groups: query -> its group."""
    result = {"all": localization_metrics(list(errors.values()), thresholds)}
    names = sorted({groups[name] for name in errors})
    for group in names if len(names) > 1 else ():
        own = [error for name, error in errors.items() if groups[name] == group]
        result[group] = localization_metrics(own, thresholds)
    return result


def metrics_table(metrics: Mapping[str, LocalizationMetrics]) -> list[list[str]]:
    """Rows for people, the head first: a line a group."""
    thresholds = list(next(iter(metrics.values())).within_percent)
    rows = [["queries", "localized", *thresholds, "median m", "median deg"]]
    for group, m in metrics.items():
        shares = [f"{share:.1f} %" for share in m.within_percent.values()]
        medians = (m.position_median, m.rotation_median_deg)
        texts = ["failed" if value is None else f"{value:.4g}" for value in medians]
        rows.append([group, f"{m.localized} of {m.queries}", *shares, *texts])
    return rows
