"""NetVLAD on VGG-16 (Arandjelovic et al., CVPR 2016) from the public .mat file.

The file is MATLAB's struct of the released network: `net.layers` holds the 13 convolutions (weights
S x S x IN x OUT), the NetVLAD layer (assignment D x K, and centres stored with the opposite sign)
and the whitening as a 1 x 1 convolution; `net.meta.normalization.averageImage` is the mean colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from reconstruct.config import NotIdentity, Section
from reconstruct.errors import WeightsError
from reconstruct.fingerprints import file_hash
from reconstruct.images import shrink
from reconstruct.storage.matlab import read_matlab
from reconstruct.types import FloatArray, ImageArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

POOL_AFTER = (1, 3, 6, 9)
"""Convolutions, counted from 0, that a 2 x 2 max pooling follows."""

MIN_EDGE_PX = 16


class NetVladConfig(Section):
    """Section ``extract.global`` with ``name: netvlad``."""

    name: Literal["netvlad"] = "netvlad"
    path: Annotated[str, NotIdentity]
    """The public .mat file of VGG-16 with NetVLAD and whitening (Pitts30K)."""
    max_edge: int = Field(1024, ge=16)
    """Images are shrunk to this longest edge."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NetVladWeights:
    """Weights of the network, contiguous, so that torch takes them as they are.

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
    if not path.is_file():
        raise WeightsError(f"{path}: no such file (extract.global.path)")
    try:
        net = read_matlab(path, "net")
        found = [layer.get("weights") for layer in net["layers"]]
        weights = [cells for cells in found if isinstance(cells, list) and cells]
        mean = np.asarray(net["meta"]["normalization"]["averageImage"], np.float32)
        convolutions = tuple((_kernel(w[0]), _float(w[1]).reshape(-1)) for w in weights[:13])
        assignment, centers = _rows(weights[13][0]), -_rows(weights[13][1])
        whitening = _rows(weights[14][0]), _float(weights[14][1]).reshape(-1)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{path}: not the .mat file of VGG-16 with NetVLAD and whitening ({error})"
        ) from error
    if [len(weights), assignment.shape, whitening[0].shape[1]] != [
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
        self._network: Network | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_network": None}

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

        if self._network is None:
            from reconstruct.torch_device import resolve_device

            weights = load_netvlad(Path(self.config.path))
            self._network = Network(weights, resolve_device(self.device))
        if min(item.shape[:2]) < MIN_EDGE_PX:
            return np.zeros((1, self._network.length), np.float32)
        pixels = torch.from_numpy(item).to(self._network.device, torch.float32)
        with torch.inference_mode():
            descriptors = self._network(pixels.permute(2, 0, 1)[None])
        return descriptors.cpu().numpy()


class Network:
    """The network on a device. Its whitening alone takes 537 MB, so it is put there once."""

    def __init__(self, weights: NetVladWeights, device: torch.device) -> None:
        import torch

        def on_device(array: FloatArray) -> Tensor:
            return torch.from_numpy(array).to(device)

        self.device = device
        self.length = len(weights.whitening[1])
        self._mean = on_device(weights.mean)[None, :, None, None]
        self._convolutions = [(on_device(k), on_device(b)) for k, b in weights.convolutions]
        self._assignment, self._centers = on_device(weights.assignment), on_device(weights.centers)
        self._whitening = on_device(weights.whitening[0]), on_device(weights.whitening[1])

    def __call__(self, images: Tensor) -> Tensor:
        """Global descriptors of images.

        Args:
            images: (B, 3, H, W) RGB, 0 to 255.

        Returns:
            (B, D') unit vectors.
        """
        import torch
        from torch.nn import functional as F

        x = images - self._mean
        last = len(self._convolutions) - 1
        for number, (kernel, bias) in enumerate(self._convolutions):
            x = F.conv2d(x, kernel, bias, padding=1)
            if number != last:
                x = F.relu(x)
            if number in POOL_AFTER:
                x = F.max_pool2d(x, 2)
        x = F.normalize(x.flatten(2), dim=1)  # (B, D, cells)
        shares = torch.softmax(self._assignment @ x, dim=1)  # (B, K, cells)
        sums = x @ shares.transpose(1, 2)  # (B, D, K)
        residuals = sums - shares.sum(dim=2)[:, None, :] * self._centers.T
        vector = F.normalize(F.normalize(residuals, dim=1).flatten(1), dim=1)
        return F.normalize(F.linear(vector, *self._whitening), dim=1)


def _kernel(array: Any) -> FloatArray:
    return np.ascontiguousarray(_float(array).transpose(3, 2, 0, 1))


def _rows(array: Any) -> FloatArray:
    """(..., N) as MATLAB stores what maps to N outputs -> (N, inputs), a row an output."""
    values = _float(array)
    return np.ascontiguousarray(values.reshape(-1, values.shape[-1]).T)


def _float(array: Any) -> FloatArray:
    return np.asarray(array, np.float32)
