"""Maps of the trunk's first layers: the layers, strips, and light that differs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from reconstruct.features import shallow
from reconstruct.features.vgg import build_trunk, normalised
from reconstruct.features.weights import load_weights
from reconstruct.types import ImageArray

CPU = torch.device("cpu")


def pattern(height: int, width: int) -> ImageArray:
    """Squares of 8 pixels of random colours."""
    colours = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
    blocks = colours.astype(np.uint8).repeat(8, 0).repeat(8, 1)
    return np.ascontiguousarray(blocks[:height, :width])


@torch.inference_mode()
def test_the_layers_are_those_of_the_trunk() -> None:
    image = pattern(48, 66)
    weights = load_weights("vgg16")
    trunk = build_trunk(weights.tensors)
    x = normalised([image], weights.preprocessing, CPU)
    x = trunk.conv1_2(trunk.conv1_1(x).relu()).relu()
    x = trunk.conv2_2(trunk.conv2_1(F.max_pool2d(x, 2)).relu()).relu()
    (found,) = shallow.conv2_2(image, CPU)
    torch.testing.assert_close(found, x[0])


@pytest.mark.parametrize("size", [(101, 67), (96, 66), (2, 2)])
def test_strips_join_without_a_seam(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    image = pattern(*size)
    whole = shallow.shallow_maps(image, CPU)
    assert whole.shape == (shallow.CHANNELS, size[0] // 2, size[1] // 2)
    monkeypatch.setattr(shallow, "ROWS", 32)
    strips = shallow.shallow_maps(image, CPU)
    # Sums in another order may round the last bit otherwise.
    assert (strips.int() - whole.int()).abs().max() <= 1


def test_they_hold_unit_vectors() -> None:
    lengths = shallow.shallow_maps(pattern(64, 64), CPU).float().norm(dim=0) / 127
    torch.testing.assert_close(lengths, torch.ones_like(lengths), atol=0.02, rtol=0)
