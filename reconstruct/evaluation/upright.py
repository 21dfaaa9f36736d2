"""Which way is up in a model, by how its cameras were held or by measured gravity: numpy only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from reconstruct.errors import EstimationError
from reconstruct.geometry import Float64

LOSS_DEG = (20.0, 10.0, 5.0, 5.0, 5.0)
"""Scale of a Cauchy loss, from step to step: cameras that were not held as the others count for
little."""
RIDGE = 0.03
"""Of the scatter of level axes, as their mean square: keeps apart what they leave open."""
AHEAD = 0.1
"""Weight of the view directions, which are level within 30 degrees: they decide only where level
axes leave a turn open."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HeldCameras:
    """Unit axes of N cameras in the frame of a model, each (N, 3), as their pictures are looked at.

    level: to the right or left. below: to the lower edge. ahead: into the picture.
    """

    level: Float64
    below: Float64
    ahead: Float64


def up_of_level_cameras(cameras: HeldCameras) -> Float64:
    """(3,) unit vector to which the level axes of cameras are perpendicular, most of them.

    The smallest eigenvector of the scatter of these axes, by inverse iteration from several starts.
    Where all cameras look one way, as along a street, it leaves a turn open: the view directions
    are then level.

    Args:
        cameras: Cameras held level from left to right, or nearly.

    Raises:
        EstimationError: There are none.
    """
    if not len(cameras.level):
        raise EstimationError("no camera tells which way is up")
    starts = [-cameras.below.mean(0), -cameras.ahead.mean(0)]
    starts = [start for start in starts if np.linalg.norm(start) > 0.1] or [np.ones(3)]
    return min((_perpendicular(cameras, start) for start in starts), key=_cost(cameras))


def _perpendicular(cameras: HeldCameras, up: Float64) -> Float64:
    up = _unit(up)
    for loss_deg in LOSS_DEG:
        weight = 1 / (1 + (cameras.level @ up / np.radians(loss_deg)) ** 2)
        scatter = (cameras.level * weight[:, None]).T @ cameras.level / weight.sum()
        up = _unit(np.linalg.solve(scatter + RIDGE * np.eye(3), up))
    # Of photos straight down the lower edge tells nothing, and the view direction all.
    towards_ground = 2 * cameras.below.mean(0) + cameras.ahead.mean(0)
    return up if up @ towards_ground <= 0 else -up


def _cost(cameras: HeldCameras) -> Callable[[Float64], float]:
    def cost(up: Float64) -> float:
        roll = np.log1p((cameras.level @ up / np.radians(LOSS_DEG[-1])) ** 2)
        pitch = np.log1p((cameras.ahead @ up / np.radians(30.0)) ** 2)
        return float((roll + AHEAD * pitch).sum())

    return cost


def up_of_gravity(gravity: Float64) -> Float64:
    """(3,) unit vector opposite to most of (N, 3) directions of gravity, in the model's frame.

    Raises:
        EstimationError: They cancel each other, or there is none.
    """
    if not len(gravity):
        raise EstimationError("no camera tells which way is up")
    towards = -gravity / np.linalg.norm(gravity, axis=1, keepdims=True)
    up = _unit(np.median(towards, axis=0))
    for loss_deg in LOSS_DEG:
        angle = np.arccos((towards @ up).clip(-1, 1))
        weight = 1 / (1 + (angle / np.radians(loss_deg)) ** 2)
        up = _unit(weight @ towards)
    return up


def rotation_to_z(up: Float64) -> Float64:
    """(3, 3) the smallest rotation that brings ``up`` to (0, 0, 1)."""
    axis = np.cross(up, [0.0, 0.0, 1.0])
    sine, cosine = float(np.linalg.norm(axis)), float(up[2])
    if sine < 1e-12:
        return np.eye(3) if cosine > 0 else np.diag([1.0, -1.0, -1.0])
    turn = Rotation.from_rotvec(axis / sine * np.arctan2(sine, cosine))
    return np.asarray(turn.as_matrix())


def _unit(vector: NDArray[np.float64]) -> Float64:
    length = float(np.linalg.norm(vector))
    if length < 1e-9:
        raise EstimationError("the cameras contradict each other about which way is up")
    return np.asarray(vector / length)
