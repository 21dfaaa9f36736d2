"""Photos of a textured plane under known homographies, in the HPatches layout."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE = (200, 160)
TILT = np.array([[0.95, 0.08, 6.0], [-0.06, 0.97, 9.0], [2e-4, -1e-4, 1.0]])
"""Between neighbouring images, in the files' pixels (first centre at (0, 0))."""


def texture(seed: int = 0) -> NDArray[np.uint8]:
    """(160, 200, 3) uint8: noise with detail at several sizes."""
    rng = np.random.default_rng(seed)
    sizes = [(6, 5), (25, 20), (100, 80)]
    layers = [
        cv2.resize(rng.random((h, w, 3)), SIZE, interpolation=cv2.INTER_CUBIC) for w, h in sizes
    ]
    mean = np.mean(layers, axis=0)
    return np.asarray(np.clip(mean * 500 - 125, 0, 255), np.uint8)


def write_sequence(
    folder: Path, step: NDArray[np.float64], *, seed: int = 0, extension: str = ".png"
) -> None:
    """Images 1 to 6, each the one before warped by ``step`` (of half strength), and H_1_k."""
    folder.mkdir(parents=True)
    first, homography = texture(seed), np.eye(3)
    for k in range(1, 7):
        image = cv2.warpPerspective(
            first, homography, SIZE, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
        )
        cv2.imwrite(str(folder / f"{k}{extension}"), image[:, :, ::-1])
        if k > 1:
            np.savetxt(folder / f"H_1_{k}", homography / homography[2, 2])
        homography = (np.eye(3) + step) / 2 @ homography
