"""R2D2 (Revaud et al., NeurIPS 2019) with weights that users provide.

The network is written from the paper: L2-Net's convolutions at full resolution, with dilation in
place of strides, and the last one replaced by three of 2 x 2; maps of reliability and of
repeatability are computed from the squares of the 128 channels. Weights are read from a local file
in the layout of the authors' ``r2d2_WASF_N16.pt``; they are not part of this package, and their
licence allows non-commercial use only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from pydantic import Field

from reconstruct.config import Section
from reconstruct.errors import WeightsError
from reconstruct.features.resizing import ResizedImage
from reconstruct.features.selection import keep_best
from reconstruct.features.weights import read_checkpoint
from reconstruct.features.weights_file import WeightsFile, checked_tensors
from reconstruct.geometry import rescale_points
from reconstruct.types import FloatArray, ImageArray, LocalFeatures

if TYPE_CHECKING:
    import torch
    from torch import Tensor

CONVOLUTIONS: Final[dict[int, tuple[int, int, int, int]]] = {
    # place in the authors' list of layers: (input channels, output channels, kernel, dilation)
    0: (3, 32, 3, 1),
    3: (32, 32, 3, 1),
    6: (32, 64, 3, 1),
    9: (64, 64, 3, 2),
    12: (64, 128, 3, 2),
    15: (128, 128, 3, 4),
    18: (128, 128, 2, 4),
    20: (128, 128, 2, 8),
    22: (128, 128, 2, 16),
}
LAST: Final = 22
"""The only convolution without batch normalization. In the others a ReLU follows if they are 3 x 3,
and none if they are 2 x 2.
"""
HEADS: Final = {"clf": 2, "sal": 1}
"""Reliability, as a choice of two classes, and repeatability: name -> channels."""
EPSILON: Final = 1e-5
MEAN: Final = (0.485, 0.456, 0.406)
DEVIATION: Final = (0.229, 0.224, 0.225)
"""Of ImageNet's colours, 0 to 1."""
SMALLEST: Final = 16
"""Smaller images yield no features."""


class R2D2Config(Section):
    """Section ``extract.local`` with ``name: r2d2``."""

    name: Literal["r2d2"] = "r2d2"
    weights: str
    """Path of a file in the layout of r2d2_WASF_N16.pt."""
    reliability: float = Field(0.7, ge=0, le=1)
    """Keypoints of smaller reliability are dropped."""
    repeatability: float = Field(0.7, ge=0, le=1)
    """Keypoints of smaller repeatability are dropped."""
    scale_step: float = Field(2**0.25, gt=1)
    """Factor between two levels of the pyramid."""
    min_size: int = Field(256, ge=16)
    """Longest edge in pixels of the smallest level, but for smaller photos."""
    max_keypoints: int | None = Field(5000, ge=1)
    """Keep at most this many keypoints, the best by reliability times repeatability."""
    max_edge: int | None = Field(1024, ge=16)
    """Longest edge in pixels to which larger images are shrunk first; null: as stored."""


class R2D2:
    """Keypoints on whole pixels of the levels of a pyramid."""

    dim = 128

    def __init__(self, config: R2D2Config, *, device: str = "auto") -> None:
        self.config = config
        self._weights = WeightsFile(config.weights, read_weights, device)

    def identity(self) -> dict[str, Any]:
        """The settings, with the weights by content."""
        return {**self.config.identity(), "weights": self._weights.content_hash()}

    def __call__(self, image: ImageArray) -> LocalFeatures:
        """Features of one (H, W, 3) uint8 RGB image."""
        return self.extract([self.prepare(image)])[0]

    def prepare(self, image: ImageArray) -> ResizedImage:
        """The image, shrunk to ``max_edge``."""
        return ResizedImage.shrunk(image, self.config.max_edge)

    def extract(self, batch: Sequence[ResizedImage]) -> list[LocalFeatures]:
        """Features of prepared images of one shape, in the same order. Raises WeightsError."""
        return [self._extract(item) for item in batch]

    def _extract(self, item: ResizedImage) -> LocalFeatures:
        import torch

        if min(item.size) < SMALLEST:
            return LocalFeatures.empty(item.original_size, self.dim)
        weights = self._weights.tensors()
        with torch.inference_mode():
            colours = torch.from_numpy(item.pixels.transpose(2, 0, 1)[None].astype(np.float32))
            mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
            image = ((colours / 255 - mean) / deviation).to(weights["clf.bias"].device)
            levels = [self._level(weights, level, item) for level in pyramid(image, self.config)]
        features = LocalFeatures(
            keypoints=np.concatenate([level.keypoints for level in levels]),
            scales=np.concatenate([level.scales for level in levels]),
            scores=np.concatenate([level.scores for level in levels]),
            descriptors=np.concatenate([level.descriptors for level in levels]),
            image_size=item.original_size,
        )
        return keep_best(features, max_keypoints=self.config.max_keypoints)

    def _level(self, weights: Mapping[str, Tensor], image: Tensor, item: ResizedImage) -> Any:
        """Features of one level, in pixels of the photo."""
        import torch

        descriptors, reliability, repeatability = forward(weights, image)
        likely = (reliability >= self.config.reliability) & (
            repeatability >= self.config.repeatability
        )
        rows, columns = torch.nonzero(maxima(repeatability) & likely, as_tuple=True)
        size = (image.shape[3], image.shape[2])
        # A pixel's centre is half a pixel from its corner, where COLMAP counts from.
        xy = torch.stack([columns, rows], dim=1).cpu().numpy() + 0.5
        positions = rescale_points(xy, size, item.original_size)
        found: FloatArray = descriptors[:, rows, columns].T.cpu().numpy()
        scores = (reliability * repeatability)[rows, columns].cpu().numpy()
        return LocalFeatures(
            keypoints=positions.astype(np.float32),
            scales=np.full(len(xy), item.original_size[0] / size[0], np.float32),
            scores=scores,
            descriptors=np.ascontiguousarray(found),
            image_size=item.original_size,
        )


def pyramid(image: Tensor, config: R2D2Config) -> Iterator[Tensor]:
    """The image and its levels, each made from the one before, as the authors' code does.

    Args:
        image: (1, 3, H, W).
        config: Step and size of the smallest level.
    """
    import torch.nn.functional as F

    height, width = image.shape[2:]
    scale = 1.0
    while True:
        yield image
        scale /= config.scale_step
        size = round(height * scale), round(width * scale)
        # The thousandth as in their code, so that rounding drops no level.
        if scale + 0.001 < config.min_size / max(height, width) or min(size) < SMALLEST:
            return
        image = F.interpolate(image, size, mode="bilinear", align_corners=False)


def forward(weights: Mapping[str, Tensor], image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The network.

    Args:
        weights: See `read_weights`.
        image: (1, 3, H, W), normalized.

    Returns:
        Unit descriptors (128, H, W), reliability (H, W) and repeatability (H, W), 0 to 1.
    """
    import torch.nn.functional as F

    x = image
    for place, (_, _, kernel, dilation) in CONVOLUTIONS.items():
        x = F.conv2d(
            x,
            weights[f"ops.{place}.weight"],
            weights[f"ops.{place}.bias"],
            padding=(kernel - 1) * dilation // 2,
            dilation=dilation,
        )
        if place != LAST:
            mean, variance = (weights[f"ops.{place + 1}.running_{s}"] for s in ("mean", "var"))
            x = F.batch_norm(x, mean, variance, eps=EPSILON)
            x = F.relu_(x) if kernel == 3 else x
    logits, value = (
        F.conv2d(x**2, weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in HEADS
    )
    positive = F.softplus(value)[0, 0]
    return F.normalize(x, dim=1)[0], logits.softmax(1)[0, 1], positive / (1 + positive)


def maxima(values: Tensor) -> Tensor:
    """(H, W) bool: largest within 3 x 3 pixels."""
    import torch.nn.functional as F

    return values == F.max_pool2d(values[None, None], 3, 1, 1)[0, 0]


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The weights in a file: ``ops.0.weight`` (32, 3, 3, 3), ``ops.1.running_mean`` (32,) ..., all
    float32.

    Raises WeightsError.
    """
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such weights file; give the path of a r2d2_WASF_N16.pt (from the authors' "
            "repository, naver/r2d2, models/)"
        )
    checkpoint = read_checkpoint(path)
    entries = checkpoint.get("state_dict") if isinstance(checkpoint, Mapping) else None
    found = entries if isinstance(entries, Mapping) else {}
    named = {str(name).removeprefix("module."): value for name, value in found.items()}
    expected = "r2d2_WASF_N16.pt (the fast and the big models have others)"
    return checked_tensors(named, layout(), path, expected)


def layout() -> dict[str, tuple[int, ...]]:
    """Name of each tensor -> its shape."""
    shapes: dict[str, tuple[int, ...]] = {}
    for place, (inputs, outputs, kernel, _) in CONVOLUTIONS.items():
        shapes[f"ops.{place}.weight"] = (outputs, inputs, kernel, kernel)
        shapes[f"ops.{place}.bias"] = (outputs,)
        if place != LAST:
            shapes |= {f"ops.{place + 1}.running_{s}": (outputs,) for s in ("mean", "var")}
    for name, outputs in HEADS.items():
        shapes |= {f"{name}.weight": (outputs, 128, 1, 1), f"{name}.bias": (outputs,)}
    return shapes
