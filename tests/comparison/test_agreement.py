"""How far two maps agree: cameras whose differences are known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from reconstruct.comparison.agreement import agreement, align, spread
from reconstruct.evaluation.poses import transform_pose
from reconstruct.geometry import projection_center

Pose = NDArray[np.float64]


def pose(center: tuple[float, float, float], yaw_deg: float = 0.0) -> Pose:
    rotation = Rotation.from_euler("y", yaw_deg, degrees=True).as_matrix()
    return np.column_stack([rotation, -rotation @ np.array(center)])


def ring() -> dict[str, Pose]:
    """Eight cameras two units from the origin, in one plane."""
    angles = 2 * np.pi * np.arange(8) / 8
    return {
        f"{i}.jpg": pose((2 * float(np.cos(a)), 2 * float(np.sin(a)), 0.0), 10.0 * i)
        for i, a in enumerate(angles)
    }


def elsewhere(poses: dict[str, Pose]) -> dict[str, Pose]:
    """The same map in another frame and unit."""
    turn = Rotation.from_euler("xyz", [20, -50, 130], degrees=True).as_matrix()
    return {
        name: transform_pose(p, 3.5, turn, np.array([5.0, -1.0, 2.0])) for name, p in poses.items()
    }


def test_the_frame_does_not_matter() -> None:
    found = agreement(ring(), elsewhere(ring()))
    assert found is not None
    assert (found.common, found.apart) == (8, ())
    assert found.rotation_max_deg < 1e-5
    assert found.position_max_percent < 1e-9


def test_one_photo_elsewhere_does_not_move_the_others() -> None:
    moved = ring()
    x, y, z = projection_center(moved["3.jpg"])
    moved["3.jpg"] = pose((x, y, z + 1.0), 30.0 + 12.0)
    found = agreement(ring(), elsewhere(moved))
    assert found is not None
    assert found.apart == ("3.jpg",)
    assert found.rotation_max_deg == pytest.approx(12.0, abs=1e-6)
    assert found.position_max_percent == pytest.approx(50.0)  # 1 of a spread of 2
    assert found.position_median_percent < 1e-9


def test_photos_of_one_map_only_do_not_count() -> None:
    fewer = {name: p for name, p in ring().items() if name not in ("0.jpg", "5.jpg")}
    found = agreement(ring(), fewer | {"other.jpg": pose((9.0, 9.0, 9.0))})
    assert found is not None
    assert found.common == 6


def test_too_little_in_common_fixes_nothing() -> None:
    line = {f"{i}.jpg": pose((float(i), 0.0, 0.0)) for i in range(5)}
    assert agreement(line, line) is None
    assert agreement(ring(), {"0.jpg": pose((0.0, 0.0, 0.0))}) is None
    assert agreement({}, {}) is None
    assert align({}, {}) is None


def test_spread_is_the_median_distance_from_the_middle() -> None:
    centers = np.array([[0, 0, 0], [1, 0, 0], [-1, 0, 0], [100, 0, 0], [-3, 0, 0]], np.float64)
    assert spread(centers) == 1.0
