"""Orientations and patches of regions, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from reconstruct.features.patch_orientation import (
    PATCH_PX,
    dominant_orientations,
    sample_patches,
    turned,
)

CENTRE = np.array([[60.0, 50.0]])


def ramp(angle: float) -> np.ndarray:
    """Grey values that rise along ``angle``."""
    rows, columns = np.mgrid[:100, :120]
    along = (columns - 60) * np.cos(angle) + (rows - 50) * np.sin(angle)
    return np.rint(128 + 1.5 * along).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("degrees", [0, 30, 90, 135, 200, 340])
def test_a_ramp_has_the_orientation_in_which_it_rises(degrees: int) -> None:
    round_ = np.diag([20.0, 20.0])[None]
    patches = sample_patches(ramp(np.radians(degrees)), CENTRE, round_)
    index, angle = dominant_orientations(patches)
    assert index.tolist() == [0]
    apart = (np.degrees(angle[0]) - degrees + 180) % 360 - 180
    assert abs(apart) < 2
    upright = sample_patches(ramp(np.radians(degrees)), CENTRE, turned(round_, angle))
    _, again = dominant_orientations(upright)
    assert abs((np.degrees(again[0]) + 180) % 360 - 180) < 2, "turned, it rises along x"


def test_two_crossing_ramps_have_two() -> None:
    rows, columns = np.mgrid[:PATCH_PX, :PATCH_PX].astype(np.float32) - 20
    corner = np.maximum(columns, rows)[None].astype(np.float32)
    index, angle = dominant_orientations(np.concatenate([corner, 0 * corner]))
    assert index.tolist() == [0, 0, 1]
    assert sorted(np.degrees(angle[:2]).round()) == [0, 90]
    assert angle[2] == 0, "no gradient"


def test_a_patch_of_a_region_of_its_size_is_the_photo() -> None:
    grey = np.random.default_rng(0).integers(0, 255, (100, 120), np.uint8)
    patch = sample_patches(grey, CENTRE, np.diag([20.0, 20.0])[None])
    np.testing.assert_allclose(patch[0], grey[30:71, 40:81], atol=1e-3)


def test_a_large_region_is_averaged() -> None:
    checks = (255 * (np.indices((400, 400)).sum(axis=0) % 2)).astype(np.uint8)
    patch = sample_patches(checks, np.array([[200.0, 200.0]]), np.diag([120.0, 120.0])[None])
    assert np.abs(patch - 127.5).max() < 5


def test_no_region() -> None:
    none = sample_patches(ramp(0), np.zeros((0, 2)), np.zeros((0, 2, 2)))
    assert none.shape == (0, PATCH_PX, PATCH_PX)
    index, angle = dominant_orientations(none)
    assert index.shape == angle.shape == (0,)
