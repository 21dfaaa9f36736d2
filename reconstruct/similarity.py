"""Similarities between two worlds, from points or cameras that are in both: numpy only.

Poses are (3, 4) cam_from_world.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.errors import EstimationError
from reconstruct.geometry import Float64, projection_center, rotation_angle_deg

MAX_HYPOTHESES = 500
"""Pairs of cameras from which a similarity is tried."""


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """A similarity on which cameras agree.

    Attributes:
        scale: Units of the target per unit of the source.
        rotation: (3, 3) target_from_source.
        translation: (3,) target_from_source.
        agreeing: (N,) bool, the cameras whose two poses it brings together.
    """

    scale: float
    rotation: Float64
    translation: Float64
    agreeing: NDArray[np.bool_]


def similarity_from_points(
    source: NDArray[Any], target: NDArray[Any]
) -> tuple[float, Float64, Float64]:
    """The similarity between two worlds in which the same points lie, by least squares.

    Umeyama, TPAMI 1991.

    Args:
        source: (N, 3) points in one world.
        target: (N, 3) the same points in the other.

    Returns:
        Scale, (3, 3) rotation and (3,) translation: x_target = scale * rotation @ x_source +
        translation.

    Raises:
        EstimationError: There are fewer than three points, or all lie on a line.
    """
    source = np.asarray(source, np.float64).reshape(-1, 3)
    target = np.asarray(target, np.float64).reshape(-1, 3)
    if len(source) < 3:
        raise EstimationError(f"a similarity needs three points in both worlds, got {len(source)}")
    middle_source, middle_target = source.mean(0), target.mean(0)
    spread = source - middle_source
    u, singular, vt = np.linalg.svd((target - middle_target).T @ spread)
    if not singular[1] > 1e-9 * singular[0]:
        raise EstimationError("the points that two models share lie on a line: a turn stays open")
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * signs) @ vt
    scale = float(singular @ signs / np.sum(spread**2))
    return scale, rotation, middle_target - scale * rotation @ middle_source


def similarity_from_poses(
    source: NDArray[Any], target: NDArray[Any]
) -> tuple[float, Float64, Float64]:
    """The similarity between two worlds in which the same cameras have poses, by least squares.

    The rotation is that of the orientations, so two cameras are enough, and cameras on a line are
    as good as any.

    Args:
        source: (N, 3, 4) poses in one world.
        target: (N, 3, 4) poses of the same cameras in the other.

    Returns:
        Scale, (3, 3) rotation and (3,) translation: x_target = scale * rotation @ x_source +
        translation.

    Raises:
        EstimationError: There are fewer than two cameras, or all are in one place.
    """
    source = np.asarray(source, np.float64).reshape(-1, 3, 4)
    target = np.asarray(target, np.float64).reshape(-1, 3, 4)
    centers_source = np.array([projection_center(pose) for pose in source]).reshape(-1, 3)
    centers_target = np.array([projection_center(pose) for pose in target]).reshape(-1, 3)
    middle_source = centers_source.mean(0) if len(source) else np.zeros(3)
    spread_source = centers_source - middle_source
    if not np.linalg.norm(spread_source) > 1e-9 * max(1.0, float(np.linalg.norm(middle_source))):
        raise EstimationError(
            "two cameras in different places are needed to say how two models are placed"
        )
    u, _, vt = np.linalg.svd(np.einsum("nij,nik->jk", target[:, :, :3], source[:, :, :3]))
    rotation = (u * [1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
    turned = spread_source @ rotation.T
    middle_target = centers_target.mean(0)
    scale = float(np.sum(turned * (centers_target - middle_target)) / np.sum(turned**2))
    return scale, rotation, middle_target - scale * rotation @ middle_source


def agreeing_similarity(
    source: NDArray[Any],
    target: NDArray[Any],
    depths: NDArray[Any],
    *,
    max_angle_deg: float = 3.0,
    max_offset: float = 0.05,
    seed: int = 0,
) -> Agreement | None:
    """The similarity between two worlds on which most cameras agree, by trying pairs of them.

    Args:
        source: (N, 3, 4) poses in one world.
        target: (N, 3, 4) poses of the same cameras in the other.
        depths: (N,) distance from a camera to what it sees, in the target's unit.
        max_angle_deg: A camera agrees if its two orientations differ by less,
        max_offset: and its two positions by less than this part of its depth.
        seed: Of the choice of pairs, where there are more than `MAX_HYPOTHESES`.

    Returns:
        The similarity, fitted to all cameras that agree; None if no two do.
    """
    best: Agreement | None = None
    for pair in _some_pairs(len(source), seed):
        found = _agreement(source, target, depths, np.array(pair), max_angle_deg, max_offset)
        if found is not None and (best is None or found.agreeing.sum() > best.agreeing.sum()):
            best = found
    if best is None or best.agreeing.sum() < 2:
        return None
    chosen = np.flatnonzero(best.agreeing)
    again = _agreement(source, target, depths, chosen, max_angle_deg, max_offset)
    return again if again is not None and again.agreeing.sum() >= len(chosen) else best


def _some_pairs(count: int, seed: int) -> list[tuple[int, int]]:
    if count * (count - 1) // 2 <= MAX_HYPOTHESES:
        return list(combinations(range(count), 2))
    rng = np.random.default_rng(seed)
    return [tuple(rng.choice(count, 2, replace=False).tolist()) for _ in range(MAX_HYPOTHESES)]


def _agreement(
    source: NDArray[Any],
    target: NDArray[Any],
    depths: NDArray[Any],
    chosen: NDArray[np.int64],
    max_angle_deg: float,
    max_offset: float,
) -> Agreement | None:
    """The similarity of some cameras, and which cameras agree with it."""
    try:
        scale, rotation, translation = similarity_from_poses(source[chosen], target[chosen])
    except EstimationError:  # both in one place: they do not say how large the world is
        return None
    if scale <= 0:
        return None
    agreeing = []
    for pose, expected, depth in zip(source, target, depths, strict=True):
        center = scale * rotation @ projection_center(pose) + translation
        offset = float(np.linalg.norm(center - projection_center(expected)))
        angle = rotation_angle_deg(pose[:, :3] @ rotation.T @ expected[:, :3].T)
        agreeing.append(angle < max_angle_deg and offset < max_offset * depth)
    return Agreement(scale, rotation, translation, np.array(agreeing, bool))
