"""NetVLAD on VGG-16 (Arandjelovic et al., CVPR 2016) from the public .mat file.

The file is MATLAB's struct of the released network: `net.layers` holds the 13 convolutions (weights
S x S x IN x OUT), the NetVLAD layer (assignment D x K, and centres stored with the opposite sign)
and the whitening as a 1 x 1 convolution; `net.meta.normalization.averageImage` is the mean colour.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.errors import WeightsError
from reconstruct.images import shrink
from reconstruct.retrieval.describers import NetVladConfig
from reconstruct.types import FloatArray, ImageArray
from reconstruct.workspace import file_hash

if TYPE_CHECKING:
    import torch
    from torch import Tensor

POOL_AFTER = (1, 3, 6, 9)
"""Convolutions, counted from 0, that a 2 x 2 max pooling follows."""

MIN_EDGE_PX = 16


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NetVladWeights:
    """Weights of the network.

    Attributes:
        convolutions: 13 of (OUT, IN, 3, 3) and (OUT,).
        assignment: (K, D).
        centers: (K, D).
        whitening: (D', K * D) and (D',), over the D x K matrix in row order.
        mean: (3,) RGB.
    """

    convolutions: tuple[tuple[FloatArray, FloatArray], ...]
    assignment: FloatArray
    centers: FloatArray
    whitening: tuple[FloatArray, FloatArray]
    mean: FloatArray


def load_netvlad(path: Path) -> NetVladWeights:
    """Read the .mat file. Raises WeightsError if it is missing or of another layout."""
    import scipy.io
    from scipy.io.matlab import MatReadError

    if not path.is_file():
        raise WeightsError(f"{path}: no such file (extract.global.path)")
    try:
        net = scipy.io.loadmat(str(path), appendmat=False, struct_as_record=False, squeeze_me=True)[
            "net"
        ]
        layers = [np.atleast_1d(layer.weights) for layer in net.layers if _has_weights(layer)]
        mean = np.asarray(net.meta.normalization.averageImage, np.float32)
        convolutions = tuple((_kernel(w[0]), _float(w[1]).reshape(-1)) for w in layers[:13])
        assignment, centers = _float(layers[13][0]).T, -_float(layers[13][1]).T
        matrix = _float(layers[14][0])
        whitening = matrix.reshape(-1, matrix.shape[-1]).T, _float(layers[14][1]).reshape(-1)
    except (
        MatReadError,
        MemoryError,
        NotImplementedError,  # MATLAB's v7.3
        zlib.error,
        KeyError,
        AttributeError,
        IndexError,
        ValueError,
        TypeError,
        OSError,
    ) as error:
        raise WeightsError(
            f"{path}: not the .mat file of VGG-16 with NetVLAD and whitening ({error})"
        ) from error
    if [len(layers), assignment.shape, whitening[0].shape[1]] != [
        15,
        centers.shape,
        centers.size,
    ]:
        raise WeightsError(f"{path}: expected 13 convolutions, NetVLAD and whitening")
    return NetVladWeights(
        convolutions=convolutions,
        assignment=assignment,
        centers=centers,
        whitening=whitening,
        mean=mean.reshape(-1, 3)[0],
    )


class NetVlad:
    """One row per image, already whitened by the matrix in the file."""

    def __init__(self, config: NetVladConfig, device: str) -> None:
        self.config, self.device = config, device
        self._weights: NetVladWeights | None = None

    def identity(self) -> Any:
        """Settings, and the weights by content."""
        path = Path(self.config.path)
        if not path.is_file():
            raise WeightsError(f"{path}: no such file (extract.global.path)")
        return {"max_edge": self.config.max_edge, "weights": file_hash(path)}

    def prepare(self, image: ImageArray) -> ImageArray:
        """Shrink an image to the longest edge."""
        return shrink(image, self.config.max_edge)

    def rows(self, item: ImageArray) -> NDArray[np.float32]:
        """(1, D') unit vector; zeros for an image too small for the poolings."""
        import torch

        from reconstruct.torch_device import resolve_device

        if self._weights is None:
            self._weights = load_netvlad(Path(self.config.path))
        if min(item.shape[:2]) < MIN_EDGE_PX:
            return np.zeros((1, len(self._weights.whitening[1])), np.float32)
        device = resolve_device(self.device)
        pixels = torch.from_numpy(item.astype(np.float32) - self._weights.mean)
        with torch.inference_mode():
            descriptors = describe(pixels.permute(2, 0, 1)[None].to(device), self._weights, device)
        return descriptors.cpu().numpy()


def describe(images: Tensor, weights: NetVladWeights, device: torch.device) -> Tensor:
    """Global descriptors of images.

    Args:
        images: (B, 3, H, W) RGB, less the mean colour.
        weights: The network.
        device: Where it runs.

    Returns:
        (B, D') unit vectors.
    """
    import torch
    from torch.nn import functional as F

    def on_device(array: FloatArray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    x = images
    last = len(weights.convolutions) - 1
    for number, (kernel, bias) in enumerate(weights.convolutions):
        x = F.conv2d(x, on_device(kernel), on_device(bias), padding=1)
        if number != last:
            x = F.relu(x)
        if number in POOL_AFTER:
            x = F.max_pool2d(x, 2)
    x = F.normalize(x.flatten(2), dim=1)  # (B, D, cells)
    shares = torch.softmax(on_device(weights.assignment) @ x, dim=1)  # (B, K, cells)
    sums = x @ shares.transpose(1, 2)  # (B, D, K)
    residuals = sums - shares.sum(dim=2)[:, None, :] * on_device(weights.centers).T
    vector = F.normalize(F.normalize(residuals, dim=1).flatten(1), dim=1)
    matrix, offset = weights.whitening
    return F.normalize(F.linear(vector, on_device(matrix), on_device(offset)), dim=1)


def _has_weights(layer: Any) -> bool:
    return np.size(getattr(layer, "weights", ())) > 0


def _kernel(array: Any) -> FloatArray:
    return np.ascontiguousarray(_float(array).transpose(3, 2, 0, 1))


def _float(array: Any) -> FloatArray:
    return np.asarray(array, np.float32)
