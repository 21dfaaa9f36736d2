"""Which way is up: cameras held level, some of them not, and measured gravity."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from reconstruct.errors import EstimationError
from reconstruct.evaluation.upright import (
    HeldCameras,
    rotation_to_z,
    up_of_gravity,
    up_of_level_cameras,
)
from reconstruct.geometry import Float64

TURN = Rotation.from_euler("xyz", [40, -70, 110], degrees=True).as_matrix()
"""Of the model, against a frame in which z is up."""


def held(headings: Float64, pitches: Float64, rolls: Float64) -> HeldCameras:
    """Cameras by angles in degrees: up by the pitch, then turned clockwise by the roll."""
    rows = []
    for heading, pitch, roll in np.radians(np.stack([headings, pitches, rolls], axis=1)):
        right = np.array([np.cos(heading), -np.sin(heading), 0])
        level_ahead = np.array([np.sin(heading), np.cos(heading), 0])
        ahead = np.cos(pitch) * level_ahead + [0, 0, np.sin(pitch)]
        below = np.cross(ahead, right)
        turned = np.cos(roll) * right + np.sin(roll) * below
        rows.append([turned, np.cos(roll) * below - np.sin(roll) * right, ahead])
    level, below, ahead = np.moveaxis(np.array(rows).reshape(-1, 3, 3) @ TURN.T, 1, 0)
    return HeldCameras(level=level, below=below, ahead=ahead)


def tilt_deg(up: Float64) -> float:
    return float(np.degrees(np.arccos(np.clip((TURN.T @ up)[2], -1, 1))))


def test_level_cameras_that_look_about() -> None:
    headings = np.arange(0, 360, 30.0)
    zero = np.zeros(12)
    assert tilt_deg(up_of_level_cameras(held(headings, zero, zero))) < 1e-4
    assert tilt_deg(up_of_level_cameras(held(headings / 6, zero + 35, zero))) < 0.1, "all look up"
    assert tilt_deg(up_of_level_cameras(held(headings / 6, zero - 89, zero))) < 0.1, "or down"
    there_and_back = headings // 180 * 180
    assert tilt_deg(up_of_level_cameras(held(there_and_back, zero - 88, zero))) < 2.1
    rolls = np.random.default_rng(0).normal(0, 2, 12)
    rolls[[2, 7]] = 90  # upright pictures whose EXIF data do not say so
    assert tilt_deg(up_of_level_cameras(held(headings, zero, rolls))) < 1.5


def test_where_all_look_one_way_the_middle_of_the_pictures_is_level() -> None:
    """Along a street the level axes are parallel, and leave the pitch of all cameras open."""
    count = 20
    pitches = np.random.default_rng(1).normal(0, 5, count)
    up = up_of_level_cameras(held(np.zeros(count), pitches, np.zeros(count)))
    assert tilt_deg(up) == pytest.approx(abs(pitches.mean()), abs=1)


def test_gravity_of_most() -> None:
    random = np.random.default_rng(2)
    gravity = TURN @ np.array([0, 0, -1]) + random.normal(0, 0.02, (30, 3))
    gravity[:6] = random.normal(size=(6, 3))
    assert tilt_deg(up_of_gravity(9.81 * gravity)) < 1


def test_the_smallest_turn() -> None:
    up = np.array([0.6, 0.0, 0.8])
    turn = rotation_to_z(up)
    np.testing.assert_allclose(turn @ up, [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(turn @ [0, 1, 0], [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(rotation_to_z(np.array([0, 0, 1.0])), np.eye(3))
    np.testing.assert_allclose(rotation_to_z(np.array([0, 0, -1.0])) @ [0, 0, -1], [0, 0, 1])


def test_cameras_that_do_not_tell() -> None:
    none = np.zeros(0)
    with pytest.raises(EstimationError, match="no camera tells which way is up"):
        up_of_level_cameras(held(none, none, none))
    with pytest.raises(EstimationError, match="no camera tells which way is up"):
        up_of_gravity(np.zeros((0, 3)))
    with pytest.raises(EstimationError, match="contradict each other about which way is up"):
        up_of_gravity(np.array([[0, 0, 1.0], [0, 0, -1.0]]))
