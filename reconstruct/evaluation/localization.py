"""Accuracy of localized queries: shares within thresholds, and medians; numpy only."""

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
"""The thresholds of visuallocalization.net for Aachen Day-Night."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalizationMetrics:
    """Accuracy of a group of queries.

    Attributes:
        queries: Number of queries.
        localized: How many of them have a pose.
        within_percent: Threshold -> percentage of all queries whose position and rotation errors
            are both within it.
        position_median: Over all queries, counting a failed one as infinite; None if that is the
            median.
        rotation_median_deg: Likewise.
    """

    queries: int
    localized: int
    within_percent: dict[str, float]
    position_median: float | None
    rotation_median_deg: float | None

    def as_dict(self) -> dict[str, Any]:
        """The metrics as JSON types."""
        return {name: getattr(self, name) for name in self.__slots__}


def query_errors(
    estimated: Mapping[str, NDArray[Any]], truth: Mapping[str, NDArray[Any]]
) -> dict[str, tuple[float, float]]:
    """Position and rotation error of each query.

    Args:
        estimated: Query -> (3, 4) cam_from_world.
        truth: Query -> (3, 4) cam_from_world in the same frame; it decides which queries count.

    Returns:
        Query -> (distance of the camera centres, rotation error in degrees); infinite without a
            pose.
    """
    errors = {}
    for name, pose in truth.items():
        estimate = estimated.get(name)
        if estimate is None:
            errors[name] = (float("inf"), float("inf"))
        else:
            distance = np.linalg.norm(projection_center(estimate) - projection_center(pose))
            errors[name] = float(distance), rotation_angle_deg(estimate[:, :3] @ pose[:, :3].T)
    return errors


def localization_metrics(
    errors: Sequence[tuple[float, float]], thresholds: Sequence[Threshold] = THRESHOLDS
) -> LocalizationMetrics:
    """Metrics of a group of queries.

    Args:
        errors: (position, rotation in degrees) of each query; if empty, shares are 0 % and medians
            None.
        thresholds: The thresholds to report.
    """
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
    """Name of a threshold, e.g. ``0.25 m, 2 deg``."""
    return f"{threshold[0]:g} m, {threshold[1]:g} deg"


def grouped_metrics(
    errors: Mapping[str, tuple[float, float]],
    groups: Mapping[str, str],
    thresholds: Sequence[Threshold],
) -> dict[str, LocalizationMetrics]:
    """Metrics of ``all`` queries, and of each group if there are several.

    Args:
        errors: Query -> (position, rotation in degrees).
        groups: Query -> group.
        thresholds: The thresholds to report.
    """
    result = {"all": localization_metrics(list(errors.values()), thresholds)}
    names = sorted({groups[name] for name in errors})
    for group in names if len(names) > 1 else ():
        of_group = [error for name, error in errors.items() if groups[name] == group]
        result[group] = localization_metrics(of_group, thresholds)
    return result


def metrics_table(metrics: Mapping[str, LocalizationMetrics]) -> list[list[str]]:
    """The metrics as a table for people: the header, then a line for each group."""
    thresholds = list(next(iter(metrics.values())).within_percent)
    rows = [["queries", "localized", *thresholds, "median m", "median deg"]]
    for group, m in metrics.items():
        shares = [f"{share:.1f} %" for share in m.within_percent.values()]
        medians = (m.position_median, m.rotation_median_deg)
        texts = ["failed" if value is None else f"{value:.4g}" for value in medians]
        rows.append([group, f"{m.localized} of {m.queries}", *shares, *texts])
    return rows
