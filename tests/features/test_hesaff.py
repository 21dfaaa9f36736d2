"""Hessian-affine regions: where the library is installed, and what is said where it is not."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest

from reconstruct.errors import UsageError
from reconstruct.features import load_extractor
from reconstruct.features.hesaff import root_sift


def blob(x: float, y: float) -> np.ndarray:
    """Bright blob with its centre at COLMAP pixel (x, y)."""
    rows, columns = np.mgrid[:160, :200] + 0.5
    grey = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 4**2))
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def faint(amplitude: float) -> np.ndarray:
    """A blob of sigma 6 that stands out from grey by ``amplitude``."""
    rows, columns = np.mgrid[:160, :200] + 0.5
    grey = 128 + amplitude * np.exp(-((columns - 100.5) ** 2 + (rows - 80.5) ** 2) / (2 * 6**2))
    return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2)


def test_root_sift_is_of_unit_length() -> None:
    found = root_sift(np.array([[1, 3, 0, 0], [0, 0, 0, 0]], np.uint8))
    np.testing.assert_allclose(found, [[0.5, np.sqrt(0.75), 0, 0], [0, 0, 0, 0]], atol=1e-7)
    assert root_sift(np.zeros((0, 128), np.uint8)).shape == (0, 128)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyhesaff", None)
    with pytest.raises(UsageError, match=r"reconstruct\[hesaff\].*affine_shape: true"):
        load_extractor("hesaff")(blob(50, 40))


def test_position_is_in_colmap_pixels() -> None:
    pytest.importorskip("pyhesaff")
    found = load_extractor("hesaff")(blob(90.5, 70.5))
    assert len(found) >= 1
    assert np.abs(found.keypoints - [90.5, 70.5]).max() < 0.05
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-5)


def test_defaults_are_those_of_the_release() -> None:
    pytest.importorskip("pyhesaff")
    # The determinant of a blob of amplitude A is A ** 2 / 16 at its best scale, and the release
    # takes regions from 14 (255 / 256) ** 2 on: amplitudes from 14.9 on.
    found = [len(load_extractor("hesaff")(faint(amplitude))) for amplitude in (13.5, 16.5)]
    assert found[0] == 0 < found[1]


def test_features_of_a_turned_photo_match() -> None:
    pytest.importorskip("pyhesaff")
    noise = np.random.default_rng(0).normal(0, 1, (200, 200))
    grey = sum(s * cv2.GaussianBlur(noise, (0, 0), s) for s in (2, 4, 8))
    photo = np.repeat((128 + 40 * grey / grey.std()).clip(0, 255).astype(np.uint8)[..., None], 3, 2)
    shares = {}
    for upright in (False, True):
        extractor = load_extractor("hesaff", upright=upright)
        first, second = (extractor(np.ascontiguousarray(np.rot90(photo, k))) for k in (0, 1))
        similarity = first.descriptors @ second.descriptors.T
        # A quarter turn to the left takes (x, y) to (y, width - x).
        turned = np.column_stack([first.keypoints[:, 1], 200 - first.keypoints[:, 0]])
        near = np.linalg.norm(turned - second.keypoints[similarity.argmax(axis=1)], axis=1) < 3
        shares[upright] = near.mean()
    assert shares[False] > 0.8
    assert shares[True] < 0.1
