"""Principal directions, on points whose spread is known."""

from __future__ import annotations

import numpy as np

from reconstruct.training.shallow_basis import principal_directions


def test_directions_come_by_variance_and_are_scaled_by_its_fourth_root() -> None:
    # Variances 16 along y and 1 along x, around (3, 5); z does not vary.
    points = np.array([[3, 9, 0], [3, 1, 0], [2, 5, 0], [4, 5, 0]], np.float32)
    weighted = [points[:2]] * 2 + [points[2:]] * 2
    mean, directions = principal_directions(weighted, 2)
    np.testing.assert_allclose(mean, [3, 5, 0], atol=1e-12)
    np.testing.assert_allclose(directions, [[0, 1, 0], [2, 0, 0]], atol=1e-9)
