"""Fixtures of the extractors' tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reconstruct.features.weights import CAFFE, CONVOLUTIONS, TrunkWeights


def blob_weights() -> TrunkWeights:
    """A trunk that blurs: one live channel, symmetric positive kernels, so that every response
    is centred on the receptive field and a bright blob gives one maximum."""
    kernel = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 16
    tensors: dict[str, NDArray[np.float32]] = {}
    for name, (inputs, outputs, _) in CONVOLUTIONS.items():
        weight = np.zeros((outputs, inputs, 3, 3), np.float32)
        weight[0, : 3 if inputs == 3 else 1] = kernel
        tensors[f"{name}.weight"] = weight
        tensors[f"{name}.bias"] = np.zeros(outputs, np.float32)
    return TrunkWeights(tensors, CAFFE)


def blob_image(
    size: tuple[int, int], centers: NDArray[np.float64], sigma_px: float
) -> NDArray[np.uint8]:
    """(height, width, 3) of Gaussian blobs at (N, 2) COLMAP pixels on black."""
    width, height = size
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    image = np.zeros((height, width))
    for cx, cy in centers:
        image += np.outer(
            np.exp(-((y - cy) ** 2) / (2 * sigma_px**2)),
            np.exp(-((x - cx) ** 2) / (2 * sigma_px**2)),
        )
    grey = np.rint(255 * image.clip(0, 1)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def textured(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """(height, width, 3) smooth random texture."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3))
    for cell in (4, 8, 16):
        coarse = rng.uniform(-60, 60, (height // cell + 2, width // cell + 2, 3))
        image += np.kron(coarse, np.ones((cell, cell, 1)))[:height, :width]
    return (image + 128).clip(0, 255).astype(np.uint8)
