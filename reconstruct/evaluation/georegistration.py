"""The similarity that brings a model to measured positions of its cameras: numpy only.

Least squares under a Cauchy loss, whose scale shrinks while it is solved (graduated non-convexity),
from several starts: outliers have no influence in the end. Where the positions do not determine a
rotation, as along a straight road, cameras are assumed to be held level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from scipy.special import ndtri

from reconstruct.errors import EstimationError
from reconstruct.geometry import Float64

LEAST = 3
"""Positions below which a similarity is not determined."""
DISAGREEING_SIGMAS = 3.0
FALSE_ALARM = 0.05
"""Probability that of positions which are all as good as they claim any is called an outlier."""
MOST_OUTLIERS = 0.5
"""Share of positions that may be outliers: with more, the right ones cannot be told."""
CONTRADICTING = 0.2
"""If the altitude alone is wrong in this share of the photos, altitudes get little weight."""
OPEN_DEG = 5.0
"""A rotation whose standard deviation is larger than this is not determined by the positions."""
LEVEL_DEG = 5.0
"""How level cameras are held, one standard deviation."""
SCALES = (100.0, 30.0, 10.0, 5.0, 3.0, 2.0, 2.0)
"""Of the Cauchy loss, in standard deviations: the last is where it ends."""
SAMPLES = 60
STEPS = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cameras:
    """N cameras of a model, in the model's frame.

    centers: (N, 3). level: (N, 3) unit axis of each that is horizontal in a camera held level.
    down: (N, 3) unit axis that then points to the ground, or nearly: the sum of the picture's down
    and of the view direction, so that it holds for photos of the ground as well.
    """

    centers: Float64
    level: Float64
    down: Float64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Georegistration:
    """A similarity to measured positions: x_new = scale * rotation x + translation.

    residuals: (N, 3) metres from where a position is to where the model puts the camera. outliers:
    (N,) of positions that do not agree with the model. altitudes: whether altitudes were as good as
    they claimed. level: whether cameras were taken to be level, as positions alone left it open.
    """

    scale: float
    rotation: Float64
    translation: Float64
    residuals: Float64
    outliers: NDArray[np.bool_]
    altitudes: bool
    level: bool


def georegister(
    cameras: Cameras,
    positions: Float64,
    sigma: Float64,
    check_altitudes: bool = True,
    fixed_scale: bool = False,
    seed: int = 0,
) -> Georegistration:
    """The similarity that brings cameras to their measured positions.

    Args:
        cameras: N cameras.
        positions: (N, 3) metres east, north, up.
        sigma: (N, 3) standard deviations of these.
        check_altitudes: Whether to count altitudes for little where they contradict each other.
        fixed_scale: Whether the model has its true size already, so that the scale is 1.
        seed: Of the samples from which it starts.

    Raises:
        EstimationError: There are fewer than three positions, all at one place, or most do not
            agree with the model.
    """
    if len(positions) < LEAST:
        raise EstimationError(
            f"{LEAST} photos with a position are needed to align a model, got {len(positions)}"
        )
    if np.ptp(cameras.centers, axis=0).max() == 0 or np.ptp(positions, axis=0).max() == 0:
        raise EstimationError("all positions are at one place, which leaves the alignment open")
    problem = _Problem(cameras, positions, sigma, fixed_scale=fixed_scale)
    found = _best(problem, _starts(problem, seed))
    altitudes = True
    if check_altitudes:
        scatter = _contradiction(found, problem)
        if scatter is not None:
            altitudes = False
            heights = np.maximum(sigma[:, 2], scatter)
            problem = replace(problem, sigma=np.column_stack([sigma[:, :2], heights]))
    level = not altitudes or problem.open_deg(found) > OPEN_DEG
    if level:
        problem = replace(problem, level=True)
        found = _best(problem, [found, *_turned(problem, found), *_starts(problem, seed)])
    residuals = problem.residuals(found)
    disagreeing = _further(residuals, problem.sigma, DISAGREEING_SIGMAS, DISAGREEING_SIGMAS)
    if disagreeing.mean() > MOST_OUTLIERS:
        raise EstimationError(
            f"only {int((~disagreeing).sum())} of {len(disagreeing)} positions agree with the "
            "model: are they of other photos, or less accurate than dataset.gps.accuracy_m?"
        )
    return Georegistration(
        scale=found.scale,
        rotation=found.rotation,
        translation=found.translation,
        residuals=residuals,
        outliers=_further(residuals, problem.sigma, *_chance_limits(len(residuals))),
        altitudes=altitudes,
        level=level,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Similarity:
    scale: float
    rotation: Float64
    translation: Float64

    def __call__(self, points: Float64) -> Float64:
        return np.asarray(self.scale * points @ self.rotation.T + self.translation)


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    cameras: Cameras
    positions: Float64
    sigma: Float64
    level: bool = False
    fixed_scale: bool = False

    def residuals(self, found: _Similarity) -> Float64:
        return found(self.cameras.centers) - self.positions

    def cost(self, found: _Similarity) -> float:
        """Cauchy loss; of two alignments that fit alike, the one with the ground below."""
        square = ((self.residuals(found) / self.sigma) ** 2).sum(1)
        total = float(np.log1p(square / SCALES[-1] ** 2).sum())
        if self.level:
            tilt = (self.cameras.level @ found.rotation.T)[:, 2] / np.radians(LEVEL_DEG)
            total += float(np.log1p(tilt**2 / SCALES[-1] ** 2).sum())
            total += float((self.cameras.down @ found.rotation.T)[:, 2].mean() > 0)
        return total

    def normal_equations(
        self, found: _Similarity, loss_scale: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(7, 7) matrix and (7,) right side for a step in rotation, log scale and translation."""
        arms = self.cameras.centers @ found.rotation.T * found.scale
        residual = self.residuals(found) / self.sigma
        jacobian = np.zeros((len(arms), 3, 7))
        jacobian[:, :, :3] = -_cross(arms)
        jacobian[:, :, 3] = 0 if self.fixed_scale else arms
        jacobian[:, :, 4:] = np.eye(3)
        jacobian /= self.sigma[:, :, None]
        weight = 1 / (1 + (residual**2).sum(1) / loss_scale**2)
        matrix = np.einsum("n,nij,nik->jk", weight, jacobian, jacobian)
        right = -np.einsum("n,nij,ni->j", weight, jacobian, residual)
        if self.level:
            axes = self.cameras.level @ found.rotation.T
            sigma = np.radians(LEVEL_DEG)
            rows = np.zeros((len(axes), 7))
            rows[:, 0], rows[:, 1] = axes[:, 1] / sigma, -axes[:, 0] / sigma
            tilt = axes[:, 2] / sigma
            weight = 1 / (1 + tilt**2 / loss_scale**2)
            matrix += (rows * weight[:, None]).T @ rows
            right -= rows.T @ (weight * tilt)
        return matrix, right

    def open_deg(self, found: _Similarity) -> float:
        """Largest standard deviation of the rotation, given the positions."""
        middle = self.cameras.centers.mean(0)
        about = replace(self.cameras, centers=self.cameras.centers - middle)
        moved = _Similarity(found.scale, found.rotation, found(middle[None])[0])
        matrix, _ = replace(self, cameras=about).normal_equations(moved, SCALES[-1])
        certain = float(np.linalg.eigvalsh(matrix[:3, :3])[0])
        return float(np.degrees(1 / np.sqrt(max(certain, 1e-12))))


def _best(problem: _Problem, starts: list[_Similarity]) -> _Similarity:
    return min((_refined(problem, start) for start in starts), key=problem.cost)


def _refined(problem: _Problem, found: _Similarity) -> _Similarity:
    """Iteratively reweighted Gauss-Newton, about the middle of the cameras."""
    middle = problem.cameras.centers.mean(0)
    centered = replace(
        problem, cameras=replace(problem.cameras, centers=problem.cameras.centers - middle)
    )
    found = _Similarity(found.scale, found.rotation, found(middle[None])[0])
    for loss_scale in SCALES:
        for _ in range(STEPS):
            matrix, right = centered.normal_equations(found, loss_scale)
            step = np.linalg.lstsq(matrix, right, rcond=1e-14)[0]
            turn = Rotation.from_rotvec(step[:3]).as_matrix()
            growth = float(np.exp(np.clip(step[3], -1, 1)))
            found = _Similarity(
                found.scale * growth, turn @ found.rotation, found.translation + step[4:]
            )
            if np.abs(step[:4]).max() < 1e-10:
                break
    shift = found.translation - found.scale * found.rotation @ middle
    return _Similarity(found.scale, found.rotation, shift)


def _starts(problem: _Problem, seed: int) -> list[_Similarity]:
    """The fit to all positions, and the best two of fits to few."""
    random = np.random.default_rng(seed)
    count = len(problem.positions)
    size = min(max(LEAST, count // 5), 20)
    every = np.arange(count)
    samples = [random.choice(count, size, replace=False) for _ in range(SAMPLES)]
    fits = [_fit(problem, rows) for rows in samples]
    return [_fit(problem, every), *sorted(fits, key=problem.cost)[:2]]


def _fit(problem: _Problem, rows: NDArray[np.intp]) -> _Similarity:
    """Least squares over some positions (Umeyama, TPAMI 1991), all of which count alike; where
    they lie on a line, with any rotation about it."""
    source, target = problem.cameras.centers[rows], problem.positions[rows]
    source_mean, target_mean = source.mean(0), target.mean(0)
    centered = source - source_mean
    u, sigma, vt = np.linalg.svd((target - target_mean).T @ centered)
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * signs) @ vt
    scale = float(sigma @ signs / max(np.sum(centered**2), 1e-300))
    scale = 1.0 if problem.fixed_scale else max(scale, 1e-12)
    return _Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)


def _turned(problem: _Problem, found: _Similarity) -> list[_Similarity]:
    """``found`` turned about the line that the cameras are nearest to."""
    moved = found(problem.cameras.centers)
    middle = moved.mean(0)
    axis = np.linalg.svd(moved - middle, full_matrices=False)[2][0]
    result = []
    for angle in np.arange(1, 8) * np.pi / 4:
        turn = Rotation.from_rotvec(angle * axis).as_matrix()
        shift = turn @ (found.translation - middle) + middle
        result.append(_Similarity(found.scale, turn @ found.rotation, shift))
    return result


def _contradiction(found: _Similarity, problem: _Problem) -> float | None:
    """How far altitudes are off, one standard deviation, where many are that should not be."""
    residuals = np.abs(problem.residuals(found)) / problem.sigma
    in_plane = np.hypot(residuals[:, 0], residuals[:, 1]) <= DISAGREEING_SIGMAS
    off = in_plane & (residuals[:, 2] > DISAGREEING_SIGMAS)
    if off.sum() <= CONTRADICTING * max(in_plane.sum(), 1):
        return None
    heights = problem.residuals(found)[in_plane, 2]
    return float(np.sqrt(np.mean((heights - np.median(heights)) ** 2)))


def _chance_limits(count: int) -> tuple[float, float]:
    """Standard deviations in plan and in altitude that none of ``count`` normal errors exceeds,
    with a probability of 1 - `FALSE_ALARM`; half of it falls to each (Bonferroni)."""
    each = FALSE_ALARM / (2 * count)
    return math.sqrt(-2 * math.log(each)), float(-ndtri(each / 2))


def _further(
    residuals: Float64, sigma: Float64, in_plan: float, in_altitude: float
) -> NDArray[np.bool_]:
    """(N,) of residuals that are larger than so many standard deviations."""
    away = np.abs(residuals) / sigma
    far = np.hypot(away[:, 0], away[:, 1]) > in_plan
    return np.asarray(far | (away[:, 2] > in_altitude))


def _cross(vectors: Float64) -> Float64:
    """(N, 3, 3) matrices M with M w = v x w."""
    matrices = np.zeros((len(vectors), 3, 3))
    x, y, z = vectors.T
    matrices[:, 0, 1], matrices[:, 0, 2] = -z, y
    matrices[:, 1, 0], matrices[:, 1, 2] = z, -x
    matrices[:, 2, 0], matrices[:, 2, 1] = -y, x
    return matrices
