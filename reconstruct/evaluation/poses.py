"""Pose errors of a model against ground truth: numpy only.

Poses are (3, 4) cam_from_world matrices by image name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.errors import EstimationError
from reconstruct.geometry import (
    angle_between_deg,
    projection_center,
    relative_pose,
    rotation_angle_deg,
)

Poses = Mapping[str, NDArray[np.float64]]
Similarity = tuple[float, NDArray[np.float64], NDArray[np.float64]]
THRESHOLDS_DEG = (1.0, 3.0, 5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoseMetrics:
    """Errors over the images that the reference has a pose for.

    Positions in the reference's unit, after alignment; angles in degrees; AUC in percent, of
    max(rotation error, translation direction error) over all pairs of reference images, where an
    unregistered image makes its pairs' errors infinite.
    """

    registered: int
    reference: int
    position_mean: float
    position_median: float
    position_max: float
    rotation_mean_deg: float
    rotation_median_deg: float
    rotation_max_deg: float
    auc_percent: dict[str, float]
    missing: list[str]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def relative_pose_error_deg(estimated: NDArray[Any], reference: NDArray[Any]) -> float:
    """max(rotation error, angle between translation directions) of two (3, 4) b_from_a.

    Where the reference does not move, only the rotation counts.
    """
    rotation = rotation_angle_deg(estimated[:, :3] @ reference[:, :3].T)
    if np.linalg.norm(reference[:, 3]) < 1e-12:
        return rotation
    translation = angle_between_deg(estimated[:, 3], reference[:, 3])
    return max(rotation, 180.0 if np.isnan(translation) else translation)


def area_under_recall(errors: Sequence[float], thresholds: Sequence[float]) -> list[float]:
    """Area under the recall curve up to each threshold, divided by it: 0 to 1.

    The curve is linear between sorted errors, as in SuperGlue's evaluation (Sarlin et al., CVPR
    2020). Infinite errors count as never recalled; no errors at all give 0.
    """
    total = len(errors)
    values = np.sort(np.asarray(errors, np.float64))
    values = np.concatenate([[0.0], values[np.isfinite(values)]])
    recall = np.arange(len(values)) / max(total, 1)
    areas = []
    for threshold in thresholds:
        last = int(np.searchsorted(values, threshold))
        x = np.append(values[:last], threshold)
        y = np.append(recall[:last], recall[last - 1] if last else 0.0)
        areas.append(float(np.diff(x) @ (y[1:] + y[:-1]) / 2 / threshold))
    return areas


def scene_errors_deg(estimated: Poses, reference: Poses) -> list[float]:
    """Relative pose error of every pair of reference images, infinite where one is missing."""
    errors = []
    for a, b in combinations(sorted(reference), 2):
        if a in estimated and b in estimated:
            found = relative_pose(estimated[a], estimated[b])
            errors.append(relative_pose_error_deg(found, relative_pose(reference[a], reference[b])))
        else:
            errors.append(float("inf"))
    return errors


def similarity(source: NDArray[Any], target: NDArray[Any]) -> Similarity:
    """Scale, (3, 3) rotation and (3,) translation target_from_source, by least squares.

    source, target: (N, 3) positions. Umeyama, TPAMI 1991; unlike COLMAP's it takes positions in
    one plane too. Raises EstimationError for fewer than three, or if they lie on a line.
    """
    if len(source) < 3:
        raise EstimationError(
            f"three common images are needed to align a model with its reference, got {len(source)}"
        )
    source_mean, target_mean = source.mean(0), target.mean(0)
    centered = source - source_mean
    u, sigma, vt = np.linalg.svd((target - target_mean).T @ centered)
    if sigma[1] <= 1e-9 * sigma[0]:  # the rotation about the line stays open
        raise EstimationError(
            "the cameras lie on one line or point, which leaves the alignment with the reference "
            "open; compare without alignment"
        )
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])  # a rotation, not a mirror
    rotation = (u * signs) @ vt
    scale = float(sigma @ signs / np.sum(centered**2))
    return scale, rotation, target_mean - scale * rotation @ source_mean


def transform_pose(
    cam_from_world: NDArray[Any], scale: float, rotation: NDArray[Any], translation: NDArray[Any]
) -> NDArray[np.float64]:
    """The pose (up to the camera's own unit) after x_new = scale * rotation x + translation."""
    new_rotation = cam_from_world[:, :3] @ rotation.T
    center = scale * rotation @ projection_center(cam_from_world) + translation
    return np.column_stack([new_rotation, -new_rotation @ center])


def pose_metrics(estimated: Poses, reference: Poses) -> PoseMetrics:
    """Metrics of poses that are already in the reference's frame.

    Raises EstimationError if no image is in both.
    """
    common = sorted(set(estimated) & set(reference))
    if not common:
        raise EstimationError("no image of the reference has a pose in the model (by name)")
    positions, rotations = [], []
    for name in common:
        offset = projection_center(estimated[name]) - projection_center(reference[name])
        positions.append(float(np.linalg.norm(offset)))
        rotations.append(rotation_angle_deg(estimated[name][:, :3] @ reference[name][:, :3].T))
    aucs = area_under_recall(scene_errors_deg(estimated, reference), THRESHOLDS_DEG)
    return PoseMetrics(
        registered=len(common),
        reference=len(reference),
        position_mean=float(np.mean(positions)),
        position_median=float(np.median(positions)),
        position_max=float(np.max(positions)),
        rotation_mean_deg=float(np.mean(rotations)),
        rotation_median_deg=float(np.median(rotations)),
        rotation_max_deg=float(np.max(rotations)),
        auc_percent={f"{t:g}": 100 * a for t, a in zip(THRESHOLDS_DEG, aucs, strict=True)},
        missing=sorted(set(reference) - set(estimated)),
    )
