"""How far two maps of the same photos agree on the poses of their cameras: numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reconstruct.errors import EstimationError
from reconstruct.evaluation.poses import Poses, Similarity, similarity, transform_pose
from reconstruct.geometry import Float64, projection_center, rotation_angle_deg

ROUNDS = 10
FAR = 3.0
"""Cameras farther off than so many times the median do not take part in the alignment."""
APART_DEG, APART_PERCENT = 5.0, 20.0
"""Differences above which two maps have a photo in different places."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Differences of poses over the photos that two maps share, after alignment.

    Maps from photos have no unit, so positions are in percent of `spread`, the median distance of
    the shared cameras from their median position. apart: photos that lie more than `APART_DEG` or
    `APART_PERCENT` from each other.
    """

    common: int
    rotation_median_deg: float
    rotation_max_deg: float
    position_median_percent: float
    position_max_percent: float
    apart: tuple[str, ...]


def agreement(first: Poses, second: Poses) -> Agreement | None:
    """How far ``second`` agrees with ``first``; None where their shared cameras fix no alignment.

    Args:
        first: Image -> (3, 4) cam_from_world.
        second: The same in a frame of its own.
    """
    common = sorted(set(first) & set(second))
    moved = align(first, second)
    if moved is None:
        return None
    centers = _centers(first, common)
    offsets = np.linalg.norm(_centers(moved, common) - centers, axis=1)
    percent = 100 * offsets / spread(centers)
    turns = np.array(
        [rotation_angle_deg(moved[n][:, :3] @ first[n][:, :3].T) for n in common], np.float64
    )
    far = (turns > APART_DEG) | (percent > APART_PERCENT)
    return Agreement(
        common=len(common),
        rotation_median_deg=float(np.median(turns)),
        rotation_max_deg=float(turns.max()),
        position_median_percent=float(np.median(percent)),
        position_max_percent=float(percent.max()),
        apart=tuple(name for name, is_far in zip(common, far, strict=True) if is_far),
    )


def align(target: Poses, source: Poses) -> Mapping[str, NDArray[np.float64]] | None:
    """``source`` in the frame of ``target``, by a similarity of the cameras that agree; None where
    shared cameras fix none (fewer than three, or all on a line)."""
    moved = target_from_source(target, source)
    if moved is None:
        return None
    return {name: transform_pose(pose, *moved) for name, pose in source.items()}


def target_from_source(target: Poses, source: Poses) -> Similarity | None:
    """The similarity of `align`.

    A least-squares fit of camera centres, repeated without those that it leaves far off: a single
    photo in the wrong place would otherwise turn the map.
    """
    common = sorted(set(target) & set(source))
    wanted, given = _centers(target, common), _centers(source, common)
    kept = np.ones(len(common), bool)
    found: Similarity | None = None
    for _ in range(ROUNDS):
        try:
            found = similarity(given[kept], wanted[kept])
        except EstimationError:
            return found
        scale, rotation, translation = found
        offsets = np.linalg.norm(scale * given @ rotation.T + translation - wanted, axis=1)
        near = offsets <= FAR * np.median(offsets)
        if np.array_equal(near, kept):
            break
        kept = near
    return found


def spread(centers: Float64) -> float:
    """Median distance of (N, 3) centres from their median position, above zero."""
    distances = np.linalg.norm(centers - np.median(centers, axis=0), axis=1)
    return max(float(np.median(distances)), 1e-12)


def _centers(poses: Poses, names: list[str]) -> Float64:
    return np.array([projection_center(poses[name]) for name in names], np.float64).reshape(-1, 3)
