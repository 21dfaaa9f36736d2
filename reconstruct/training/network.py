"""The network in two parts: the trunk up to conv4_2, which is frozen, and conv4_3, which learns.

Both exist in the two layouts of `reconstruct.training.data.layout`. Importing this module loads
torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from reconstruct.features.vgg import (
    AVERAGE_POOL_AFTER,
    LAST,
    MAX_POOL_AFTER,
    dilation,
    normalised,
)
from reconstruct.features.weights import CONVOLUTIONS, TrunkWeights
from reconstruct.training.data.layout import LayoutName
from reconstruct.types import ImageArray

Precision = Literal["float32", "bfloat16"]
Tensors = Mapping[str, NDArray[np.float32]]


class FrozenTrunk:
    """conv1_1 to conv4_2 with their ReLUs: from photos to the input of conv4_3."""

    def __init__(
        self, weights: TrunkWeights, layout: LayoutName, precision: Precision, device: torch.device
    ) -> None:
        self.layout = layout
        self.device = device
        self.dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self.preprocessing = weights.preprocessing
        self._weights = {
            name: torch.from_numpy(weights.tensors[f"{name}.weight"])
            .to(device, self.dtype)
            .contiguous(memory_format=torch.channels_last)
            for name in CONVOLUTIONS
            if name != LAST
        }
        self._biases = {
            name: torch.from_numpy(weights.tensors[f"{name}.bias"]).to(device, self.dtype)
            for name in self._weights
        }

    @torch.no_grad()  # not inference mode: conv4_3's gradient needs what comes out
    def __call__(self, images: ImageArray) -> Tensor:
        """(K, S, S, 3) uint8 RGB -> (K, 512, h, w) float32, on the device, channels last."""
        x = normalised(list(images), self.preprocessing, self.device).to(self.dtype)
        x = x.contiguous(memory_format=torch.channels_last)
        for name, weight in self._weights.items():
            spread = spacing(name, self.layout)
            x = F.conv2d(x, weight, self._biases[name], padding=spread, dilation=spread)
            x = F.relu_(x)
            if name in MAX_POOL_AFTER or (name == AVERAGE_POOL_AFTER and self.layout == "release"):
                x = F.max_pool2d(x, 2)
            elif name == AVERAGE_POOL_AFTER:
                x = F.avg_pool2d(x, 2, stride=1)
        return x.float()


def spacing(name: str, layout: LayoutName) -> int:
    """Dilation (and padding) of a convolution."""
    return dilation(name) if layout == "test_time" else 1


def make_head(tensors: Tensors, layout: LayoutName, device: torch.device) -> nn.Conv2d:
    """conv4_3 without its ReLU, trainable.

    Args:
        tensors: Weights to start from.
        layout: Layout of the network.
        device: Where it runs.
    """
    spread = spacing(LAST, layout)
    head = nn.Conv2d(512, 512, 3, padding=spread, dilation=spread)
    state = {kind: torch.from_numpy(tensors[f"{LAST}.{kind}"]) for kind in ("weight", "bias")}
    head.load_state_dict(state)
    # Typed as Module by torch's stubs, but the same Conv2d comes back.
    head.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return head


def head_tensors(head: nn.Conv2d) -> dict[str, NDArray[np.float32]]:
    """Copies of conv4_3's weights, named as in `reconstruct.features.weights`."""
    return {
        f"{LAST}.{kind}": value.float().cpu().contiguous().numpy().copy()
        for kind, value in head.state_dict().items()
    }
