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
    """Pose errors over the images that have a pose in the reference.

    Positions are in the reference's unit, after alignment; angles in degrees; AUC in percent, of
    max(rotation error, translation direction error) over all pairs of reference images. An
    unregistered image makes the errors of its pairs infinite.
    """

    registered: int
    reference: int
    position_mean: float
    position_median: float
    position_max: float
    position_rms: float
    rotation_mean_deg: float
    rotation_median_deg: float
    rotation_max_deg: float
    auc_percent: dict[str, float]
    missing: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The metrics as JSON types."""
        return asdict(self)


def relative_pose_error_deg(estimated: NDArray[Any], reference: NDArray[Any]) -> float:
    """max(rotation error, angle between translation directions) of two (3, 4) poses b_from_a.

    If the reference has no translation, only the rotation counts.
    """
    rotation = rotation_angle_deg(estimated[:, :3] @ reference[:, :3].T)
    if np.linalg.norm(reference[:, 3]) < 1e-12:
        return rotation
    translation = angle_between_deg(estimated[:, 3], reference[:, 3])
    return max(rotation, 180.0 if np.isnan(translation) else translation)


def area_under_recall(errors: Sequence[float], thresholds: Sequence[float]) -> list[float]:
    """Area under the recall curve up to each threshold, divided by the threshold: 0 to 1.

    The curve is linear between the sorted errors, as in SuperGlue's evaluation (Sarlin et al., CVPR
    2020).

    Args:
        errors: Infinite errors count as never recalled; without errors the area is 0.
        thresholds: Limits of the area, in the unit of the errors.
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
    """Relative pose error of every pair of reference images, infinite if one has no pose."""
    errors = []
    for a, b in combinations(sorted(reference), 2):
        if a in estimated and b in estimated:
            b_from_a = relative_pose(estimated[a], estimated[b])
            truth = relative_pose(reference[a], reference[b])
            errors.append(relative_pose_error_deg(b_from_a, truth))
        else:
            errors.append(float("inf"))
    return errors


def similarity(source: NDArray[Any], target: NDArray[Any]) -> Similarity:
    """Similarity between two sets of points by least squares (Umeyama, TPAMI 1991).

    Unlike COLMAP's it also takes positions in one plane.

    Args:
        source: (N, 3) positions.
        target: (N, 3) the same points in another frame.

    Returns:
        Scale, (3, 3) rotation and (3,) translation target_from_source.

    Raises:
        EstimationError: There are fewer than three positions, or they lie on a line.
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
    """The pose of a camera after the world is transformed by x_new = scale * rotation x +
    translation.

    The unit of the camera frame stays what it was.
    """
    new_rotation = cam_from_world[:, :3] @ rotation.T
    center = scale * rotation @ projection_center(cam_from_world) + translation
    return np.column_stack([new_rotation, -new_rotation @ center])


def pose_metrics(estimated: Poses, reference: Poses) -> PoseMetrics:
    """Errors of poses that are already in the reference's frame.

    Args:
        estimated: Image -> (3, 4) cam_from_world.
        reference: Image -> (3, 4) cam_from_world, the truth.

    Raises:
        EstimationError: No image is in both.
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
        position_rms=float(np.sqrt(np.mean(np.square(positions)))),
        rotation_mean_deg=float(np.mean(rotations)),
        rotation_median_deg=float(np.median(rotations)),
        rotation_max_deg=float(np.max(rotations)),
        auc_percent={f"{t:g}": 100 * a for t, a in zip(THRESHOLDS_DEG, aucs, strict=True)},
        missing=sorted(set(reference) - set(estimated)),
    )
