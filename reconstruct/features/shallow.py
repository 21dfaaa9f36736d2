"""What surroundings look like to the first layers of the trunk, for photos of different light.

VGG-16 up to conv2_2: one vector for every 2 x 2 pixels, which sees 14 pixels around. Lamps and
shadows turn bright to dark and back; what these layers tell of edges and corners stays more alike.
(Keypoints aligned by maps of a network: Lindenberger et al., "Pixel-Perfect Structure-from-Motion
with Featuremetric Refinement", ICCV 2021.)

The 128 channels are mostly the same number everywhere, and say the same thing several times: from
the unit vector of a cell the mean over photos is taken, the rest is projected on its `CHANNELS`
principal directions, each divided by the fourth root of its variance, and made a unit vector again
(basis and mean from photos of bsds500/train, by `reconstruct.training.shallow_basis`).

Importing this module loads torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Final

import numpy as np
import torch
from safetensors.numpy import load
from torch import Tensor
from torch.nn import functional as F

from reconstruct.features.vgg import normalised
from reconstruct.features.weights import TrunkWeights, load_weights
from reconstruct.types import ImageArray

LAYERS: Final = ("conv1_1", "conv1_2", "conv2_1", "conv2_2")
STRIDE_PX: Final = 2
CHANNELS: Final = 32
WEIGHTS: Final = "vgg16"
BASIS: Final = "shallow_basis.safetensors"
ROWS: Final = 256
"""Rows of an image that are looked at together: 0.3 GB for a width of 1,600."""
MARGIN: Final = 8
"""Rows around them that their cells see, rounded up to an even number."""


def shallow_maps(image: ImageArray, device: torch.device) -> Tensor:
    """One unit vector for every 2 x 2 pixels of an image.

    Args:
        image: (H, W, 3) uint8 RGB, of 2 x 2 pixels at least.
        device: Where it is computed, and of the result.

    Returns:
        (`CHANNELS`, H // 2, W // 2) int8, 127 times the unit vectors.
    """
    mean, basis = (torch.from_numpy(value).to(device) for value in _basis())
    strips = []
    for cells in conv2_2(image, device):
        vectors = F.normalize(cells, dim=0) - mean[:, None, None]
        projected = F.normalize(torch.tensordot(basis, vectors, dims=1), dim=0)
        strips.append((127 * projected).round().to(torch.int8))
    return torch.cat(strips, dim=1)


@torch.inference_mode()
def conv2_2(image: ImageArray, device: torch.device) -> Iterator[Tensor]:
    """(128, h, W // 2) output of conv2_2 after its ReLU, in strips of h rows from the top."""
    weights, layers = _layers(device)
    height = image.shape[0] // STRIDE_PX * STRIDE_PX
    for top in range(0, height, ROWS):
        bottom = min(top + ROWS, height)
        above, below = min(MARGIN, top), min(MARGIN, height - bottom)
        x = normalised([image[top - above : bottom + below]], weights.preprocessing, device)
        for name, (kernel, bias) in layers.items():
            if name == "conv2_1":
                x = F.max_pool2d(x, STRIDE_PX)
            x = F.relu_(F.conv2d(x, kernel, bias, padding=1))
        first = above // STRIDE_PX
        yield x[0, :, first : first + (bottom - top) // STRIDE_PX]


@cache
def _layers(device: torch.device) -> tuple[TrunkWeights, dict[str, tuple[Tensor, Tensor]]]:
    weights = load_weights(WEIGHTS)
    tensors = {name: torch.from_numpy(weights.tensors[name]).to(device) for name in _names()}
    layers = {name: (tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for name in LAYERS}
    return TrunkWeights({}, weights.preprocessing), layers


def _names() -> list[str]:
    return [f"{name}.{kind}" for name in LAYERS for kind in ("weight", "bias")]


@cache
def _basis() -> tuple[np.ndarray[tuple[int], np.dtype[np.float32]], ...]:
    """(128,) mean of unit vectors, (`CHANNELS`, 128) directions."""
    stored = load(resources.files("reconstruct").joinpath("data", BASIS).read_bytes())
    return stored["mean"], stored["basis"]
