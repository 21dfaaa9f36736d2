from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from reconstruct.errors import EstimationError
from reconstruct.evaluation.georegistration import Cameras, Georegistration, georegister

SCALE, TURN, SHIFT = 3.0, Rotation.from_rotvec([0.3, 2.0, -1.1]).as_matrix(), np.array([5.0, 6, 7])
"""Model from world of the synthetic cameras."""


def level_cameras(centers: NDArray[np.float64], headings_deg: NDArray[np.float64]) -> Cameras:
    """Cameras that look at the horizon, in the frame of a model."""
    angle = np.radians(headings_deg)
    forward = np.column_stack([np.sin(angle), np.cos(angle), np.zeros(len(angle))])
    right = np.column_stack([np.cos(angle), -np.sin(angle), np.zeros(len(angle))])
    down = forward - np.array([0, 0, 1])
    return Cameras(
        centers=SCALE * centers @ TURN.T + SHIFT, level=right @ TURN.T, down=down @ TURN.T
    )


def errors(found: Georegistration) -> tuple[float, float]:
    """Relative error of the scale, and error of the rotation in degrees."""
    turn = Rotation.from_matrix(found.rotation @ TURN)
    return abs(found.scale * SCALE - 1), float(np.degrees(turn.magnitude()))


def walk(count: int, size: tuple[float, float, float], seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(count, 3)) * size


def test_exact_positions_give_the_exact_similarity() -> None:
    centers = walk(5, (30, 20, 5))
    found = georegister(level_cameras(centers, np.arange(5) * 70), centers, np.ones((5, 3)))
    assert errors(found) == (pytest.approx(0, abs=1e-9), pytest.approx(0, abs=1e-5))
    assert np.abs(found.residuals).max() < 1e-6
    assert not found.outliers.any()
    assert (found.altitudes, found.level) == (True, False)


def test_outliers_do_no_harm() -> None:
    rng = np.random.default_rng(1)
    centers = walk(60, (80, 60, 5))
    positions = centers + rng.normal(size=(60, 3)) * [0.5, 0.5, 1]
    far = np.arange(0, 60, 4)  # a quarter of them
    positions[far] += rng.uniform(40, 400, (len(far), 3))
    sigma = np.tile([0.5, 0.5, 1.0], (60, 1))
    found = georegister(level_cameras(centers, rng.uniform(0, 360, 60)), positions, sigma)
    scale, turn = errors(found)
    assert scale < 0.005
    assert turn < 0.5
    assert set(far) == set(np.flatnonzero(found.outliers))


def test_chance_names_no_outliers() -> None:
    """Of 100 positions as good as they claim one or two are 3 standard deviations off."""
    named = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        centers = walk(100, (80, 60, 5), seed)
        positions = centers + rng.normal(size=(100, 3)) * [0.5, 0.5, 1]
        cameras = level_cameras(centers, rng.uniform(0, 360, 100))
        found = georegister(cameras, positions, np.tile([0.5, 0.5, 1.0], (100, 1)))
        named.append(int(found.outliers.sum()))
    assert sum(named) <= 2


def test_altitudes_from_two_starts_do_not_tilt_the_model() -> None:
    """As of a drone that measures from where it took off, once uphill and once downhill."""
    rng = np.random.default_rng(2)
    centers = walk(80, (100, 70, 3))
    positions = centers + rng.normal(size=(80, 3))
    positions[::2, 2] += 60
    cameras = level_cameras(centers, rng.uniform(0, 360, 80))
    found = georegister(cameras, positions, np.tile([1.0, 1.0, 2.0], (80, 1)))
    assert not found.altitudes
    assert found.level
    scale, turn = errors(found)
    assert scale < 0.005
    assert turn < 1
    with pytest.raises(EstimationError, match="of 80 positions agree"):
        georegister(cameras, positions, np.tile([1.0, 1, 2], (80, 1)), check_altitudes=False)


@pytest.mark.parametrize("bend", [0.0, 0.02])
def test_along_a_straight_road_cameras_are_level(bend: float) -> None:
    rng = np.random.default_rng(3)
    along = np.linspace(0, 200, 40)
    centers = np.column_stack([along, bend * rng.normal(size=40), np.zeros(40)])
    positions = centers + rng.normal(size=(40, 3)) * 0.3
    cameras = level_cameras(centers, 90 + rng.normal(size=40) * 3)
    found = georegister(cameras, positions, np.tile([0.3, 0.3, 0.6], (40, 1)))
    assert found.level
    scale, turn = errors(found)
    assert scale < 0.005
    assert turn < 2, "neither rolled, nor with the ground above"


def test_positions_of_other_photos_are_refused() -> None:
    centers = walk(40, (80, 60, 5))
    cameras = level_cameras(centers, np.arange(40) * 9)
    shuffled = centers[np.random.default_rng(0).permutation(40)]
    with pytest.raises(EstimationError, match="of 40 positions agree with the model: are they of"):
        georegister(cameras, shuffled, np.ones((40, 3)))


def test_what_leaves_the_alignment_open_is_told() -> None:
    centers = walk(2, (1, 1, 1))
    cameras = level_cameras(centers, np.zeros(2))
    with pytest.raises(EstimationError, match=r"3 photos with a position are needed .* got 2"):
        georegister(cameras, centers, np.ones((2, 3)))
    cameras = level_cameras(np.zeros((4, 3)), np.zeros(4))
    with pytest.raises(EstimationError, match="at one place"):
        georegister(cameras, walk(4, (1, 1, 1)), np.ones((4, 3)))
