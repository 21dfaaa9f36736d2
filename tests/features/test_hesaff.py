"""Hessian-affine regions: where the library is installed, and what is said where it is not."""

from __future__ import annotations

import sys

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
    np.testing.assert_allclose(found.keypoints, [[90.5, 70.5]], atol=0.05)
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-5)
