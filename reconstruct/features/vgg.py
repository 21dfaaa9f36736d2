"""The D2-Net trunk: VGG-16 up to conv4_3, and the positions of its cells in the image.

Two 2x2 max pools of stride 2, one 2x2 **average pool of stride 1**, and dilation 2 in the last
three convolutions: one cell for every 4 input pixels, 512 channels (Dusmanu et al., "D2-Net", CVPR
2019, section 3.2).

Importing this module loads torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from reconstruct.features.weights import CONVOLUTIONS, Preprocessing
from reconstruct.types import ImageArray

STRIDE_PX: Final = 4
"""Distance between the centres of neighbouring cells, in input pixels."""

MIN_EDGE_PX: Final = 8
"""A shorter edge yields no cell: floor(7 / 4) - 1 = 0."""

MAX_POOL_AFTER: Final = frozenset({"conv1_2", "conv2_2"})
AVERAGE_POOL_AFTER: Final = "conv3_3"
LAST: Final = "conv4_3"


def dilation(name: str) -> int:
    """Dilation (and padding, which keeps the size) of a convolution."""
    return 2 if name.startswith("conv4") else 1


def map_size(height: int, width: int) -> tuple[int, int]:
    """(rows, columns) of the feature map of an image; 0 if the image is too small."""
    return max(0, height // 4 - 1), max(0, width // 4 - 1)


class Trunk(nn.Module):
    """conv1_1 to conv4_3 with average pooling at stride 1; the last ReLU is optional.

    Input (B, 3, H, W) float, normalised as its weights require it; output (B, 512, H//4 - 1, W//4 -
    1). Both edges are at least `MIN_EDGE_PX`.
    """

    def __init__(self, use_relu: bool = True) -> None:
        super().__init__()
        self.use_relu = use_relu
        for name, (inputs, outputs, _) in CONVOLUTIONS.items():
            pad = dilation(name)
            self.add_module(name, nn.Conv2d(inputs, outputs, 3, padding=pad, dilation=pad))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) images -> (B, 512, H//4 - 1, W//4 - 1) map."""
        x = images
        for name, layer in self.named_children():
            x = layer(x)
            if name != LAST or self.use_relu:
                # In place: the convolution's output is nobody else's, and it is the largest array.
                x = F.relu_(x) if not torch.is_grad_enabled() else F.relu(x)
            if name in MAX_POOL_AFTER:
                x = F.max_pool2d(x, 2)
            elif name == AVERAGE_POOL_AFTER:
                x = F.avg_pool2d(x, 2, stride=1)
        return x


def build_trunk(tensors: Mapping[str, NDArray[np.float32]], use_relu: bool = True) -> Trunk:
    """A `Trunk` in evaluation mode with the given weights (names ``conv1_1.weight`` ...)."""
    trunk = Trunk(use_relu)
    trunk.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    return trunk.eval().requires_grad_(False)


def normalised(
    pixels: Sequence[ImageArray], preprocessing: Preprocessing, device: torch.device
) -> Tensor:
    """Images as the trunk takes them.

    Args:
        pixels: (h, w, 3) uint8 RGB images of one shape.
        preprocessing: As the weights require it.
        device: Device of the result.

    Returns:
        (B, 3, h, w) float32.
    """
    stack = torch.from_numpy(np.stack(pixels))
    if device.type == "cuda":
        stack = stack.pin_memory().to(device, non_blocking=True)
    order = list(preprocessing.order)
    images = stack[..., order].permute(0, 3, 1, 2).float().div_(preprocessing.scale)
    mean, std = (
        torch.tensor(values, device=device).view(1, 3, 1, 1)
        for values in (preprocessing.mean, preprocessing.std)
    )
    return images.sub_(mean).div_(std)
