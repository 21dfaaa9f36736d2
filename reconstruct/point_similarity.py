"""The similarity between two worlds from keypoints that were matched between their photos.

A matched keypoint sees a 3D point of its own world, or none yet. One similarity has to bring the
points of either world to where the matched keypoints of the other see them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from reconstruct.errors import EstimationError
from reconstruct.geometry import Float64
from reconstruct.similarity import Agreement, similarity_from_points

TRIALS = 2000
"""Triples of points from which a similarity is tried at most."""
JUDGES = 2000
"""Matches by which a similarity is judged while the best one is searched for."""
CONFIDENCE = 0.9999
"""Probability, by the best similarity so far, that a triple without outliers was drawn."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sightings:
    """M matched keypoints of one world's photos.

    Attributes:
        points: (M, 3) the point that a keypoint observes, NaN where it observes none.
        rays: (M, 2) the keypoint on the plane z = 1 of its camera, without distortion.
        poses: (M, 3, 4) cam_from_world of its photo.
        focal_px: (M,) focal length of its camera.
    """

    points: Float64
    rays: Float64
    poses: Float64
    focal_px: Float64

    def offsets_px(self, points: Float64) -> Float64:
        """(M, 2) how far from its keypoint each of (M, 3) points is seen, in pixels.

        Infinite behind the camera, NaN for a point that is NaN.
        """
        seen = np.einsum("nij,nj->ni", self.poses[:, :, :3], points) + self.poses[:, :, 3]
        with np.errstate(divide="ignore", invalid="ignore"):
            offsets = self.focal_px[:, None] * (seen[:, :2] / seen[:, 2:] - self.rays)
        offsets[seen[:, 2] <= 0] = np.inf
        return np.asarray(offsets)

    def select(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Sightings:
        """Some of the keypoints."""
        return Sightings(
            points=self.points[rows],
            rays=self.rays[rows],
            poses=self.poses[rows],
            focal_px=self.focal_px[rows],
        )


def similarity_from_sightings(
    source: Sightings, target: Sightings, max_error_px: float, *, seed: int = 0
) -> Agreement | None:
    """The similarity on which most matches agree, by RANSAC over triples of points.

    Args:
        source: The matched keypoints of one world.
        target: Those of the other, in the order of ``source``.
        max_error_px: A match agrees if the point of either keypoint, as far as it has one, is seen
            within so many pixels of the other.
        seed: Of the samples.

    Returns:
        target_from_source, fitted to the reprojection errors of all matches that agree, with
        ``agreeing`` (M,); None if fewer than three points are in both worlds or none agree.
    """
    there, back = np.isfinite(source.points[:, 0]), np.isfinite(target.points[:, 0])
    both, either = np.flatnonzero(there & back), np.flatnonzero(there | back)
    if len(both) < 3:
        return None
    rng = np.random.default_rng(seed)
    found = _searched(source, target, both, either, max_error_px, rng)
    if found is None:
        return None
    for _ in range(3):
        agreement = Agreement(*found, _errors_px(source, target, found) <= max_error_px)
        if agreement.agreeing[both].sum() < 3:
            return None
        found = _fitted(source, target, agreement, max_error_px)
    return Agreement(*found, _errors_px(source, target, found) <= max_error_px)


_Similarity = tuple[float, Float64, Float64]


def _searched(
    source: Sightings,
    target: Sightings,
    both: NDArray[np.int64],
    either: NDArray[np.int64],
    max_error_px: float,
    rng: np.random.Generator,
) -> _Similarity | None:
    """The best similarity of three points, judged by some of the matches that see one: of rows with
    a point on both sides, and of those with one on either."""
    judges = rng.choice(either, JUDGES, replace=False) if len(either) > JUDGES else either
    views = source.select(judges), target.select(judges)
    best: _Similarity | None = None
    least, needed, trial = np.inf, float(TRIALS), 0
    while trial < needed:
        trial += 1
        found = _from_points(source, target, rng.choice(both, 3, replace=False))
        if found is None:
            continue
        errors = _errors_px(*views, found)
        cost = float(np.minimum(errors, max_error_px).sum())
        if cost < least:
            least, best = cost, found
            needed = min(needed, _trials(float(np.mean(errors <= max_error_px))))
    return best


def _trials(ratio: float) -> float:
    """Samples of three of which one has no outlier, with probability `CONFIDENCE`."""
    good = ratio**3
    if good <= 0.0 or good >= 1.0:
        return float(TRIALS) if good <= 0.0 else 1.0
    return float(np.log(1 - CONFIDENCE) / np.log1p(-good))


def _from_points(
    source: Sightings, target: Sightings, rows: NDArray[np.int64]
) -> _Similarity | None:
    try:
        found = similarity_from_points(source.points[rows], target.points[rows])
    except EstimationError:  # the same point twice, or three on a line
        return None
    return found if found[0] > 0 else None


def _agreement(found: _Similarity, agreeing: NDArray[np.bool_]) -> Agreement:
    return Agreement(*found, agreeing)


def _offsets_px(
    source: Sightings, target: Sightings, found: _Similarity
) -> tuple[Float64, Float64]:
    """How far from its partner the point of either keypoint of a match is seen: of the source's
    keypoints in photos of the target, and the other way round."""
    scale, rotation, translation = found
    there = scale * source.points @ rotation.T + translation
    back = (target.points - translation) @ rotation / scale
    return target.offsets_px(there), source.offsets_px(back)


def _errors_px(source: Sightings, target: Sightings, found: _Similarity) -> Float64:
    """(M,) the larger of a match's two errors, NaN where neither keypoint has a point."""
    there, back = _offsets_px(source, target, found)
    return np.asarray(np.fmax(np.linalg.norm(there, axis=1), np.linalg.norm(back, axis=1)))


def _fitted(
    source: Sightings, target: Sightings, start: Agreement, max_error_px: float
) -> _Similarity:
    """The similarity that makes the reprojection errors of the agreeing matches smallest."""
    chosen = source.select(start.agreeing), target.select(start.agreeing)
    pivot = np.nanmean(chosen[0].points, axis=0)
    moved = start.scale * start.rotation @ pivot + start.translation

    def similarity(step: Float64) -> _Similarity:
        scale = start.scale * float(np.exp(step[0]))
        rotation = Rotation.from_rotvec(step[1:4]).as_matrix() @ start.rotation
        return scale, rotation, moved + step[4:] - scale * rotation @ pivot

    def residuals(step: Float64) -> Float64:
        offsets = np.concatenate(_offsets_px(*chosen, similarity(step))).ravel()
        # A point that a step puts behind a camera is as bad as any outlier.
        return np.clip(offsets[~np.isnan(offsets)], -10 * max_error_px, 10 * max_error_px)

    solved = least_squares(
        residuals, np.zeros(7), loss="soft_l1", f_scale=max_error_px / 4, x_scale="jac"
    )
    return similarity(solved.x)
