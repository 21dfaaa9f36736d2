"""SuperPoint (DeTone, Malisiewicz, Rabinovich, CVPR workshops 2018) with weights that users
provide.

The network is written from the paper: a VGG-style encoder of stride 8, a detector head with 65
channels (the 64 pixels of a cell and "no keypoint"), a descriptor head with 256. Weights are read
from a local file in the layout of the authors' ``superpoint_v1.pth``; they are not part of this
package, and Magic Leap's licence allows them for non-commercial use only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from reconstruct.images import to_grey
from reconstruct.types import ImageArray, LocalFeatures

if TYPE_CHECKING:
    import torch
    from torch import Tensor

LAYERS: Final[dict[str, tuple[int, int, int]]] = {
    # name: (input channels, output channels, kernel size)
    "conv1a": (1, 64, 3),
    "conv1b": (64, 64, 3),
    "conv2a": (64, 64, 3),
    "conv2b": (64, 64, 3),
    "conv3a": (64, 128, 3),
    "conv3b": (128, 128, 3),
    "conv4a": (128, 128, 3),
    "conv4b": (128, 128, 3),
    "convPa": (128, 256, 3),
    "convPb": (256, 65, 1),
    "convDa": (128, 256, 3),
    "convDb": (256, 256, 1),
}
ENCODER: Final = tuple(LAYERS)[:8]
POOL_AFTER: Final = ("conv1b", "conv2b", "conv3b")
CELL: Final = 8


class SuperPointConfig(Section):
    """Section ``extract.local`` with ``name: superpoint``."""

    name: Literal["superpoint"] = "superpoint"
    weights: str
    """Path of a file in the layout of superpoint_v1.pth."""
    threshold: float = Field(0.015, ge=0, le=1)
    """Keypoints of smaller probability are dropped."""
    nms_radius: int = Field(4, ge=0)
    """A keypoint is the best within this many pixels, along x and along y."""
    border: int = Field(4, ge=0)
    """No keypoints within this many pixels of the image's edges."""
    max_keypoints: int | None = Field(None, ge=1)
    """Keep at most this many keypoints, the best by score."""
    max_edge: int | None = Field(1600, ge=16)
    """Longest edge in pixels to which larger images are shrunk first; null: as stored."""


class SuperPoint:
    """Keypoints on whole pixels of the (shrunk) image, all of one scale."""

    dim = 256

    def __init__(self, config: SuperPointConfig, *, device: str = "auto") -> None:
        self.config = config
        self._weights = WeightsFile(config.weights, read_weights, device)

    def identity(self) -> dict[str, Any]:
        """The settings, with the weights by content."""
        return {**self.config.identity(), "weights": self._weights.content_hash()}

    def __call__(self, image: ImageArray) -> LocalFeatures:
        """Features of one (H, W, 3) uint8 RGB image."""
        return self.extract([self.prepare(image)])[0]

    def prepare(self, image: ImageArray) -> ResizedImage:
        """The grey image, shrunk to ``max_edge``."""
        return ResizedImage.shrunk(to_grey(image), self.config.max_edge)

    def extract(self, batch: Sequence[ResizedImage]) -> list[LocalFeatures]:
        """Features of prepared images of one shape. Raises WeightsError."""
        import torch

        if not batch:
            return []
        if min(batch[0].size) < CELL:
            return [LocalFeatures.empty(item.original_size, self.dim) for item in batch]
        weights = self._weights.tensors()
        grey = np.stack([item.pixels for item in batch])[:, None]
        with torch.inference_mode():
            images = torch.from_numpy(grey).to(weights["conv1a.bias"].device).float() / 255
            probabilities, coarse = forward(weights, images)
            return [self._finish(*maps) for maps in zip(probabilities, coarse, batch, strict=True)]

    def _finish(self, probability: Tensor, coarse: Tensor, item: ResizedImage) -> LocalFeatures:
        import torch

        config = self.config
        likely = torch.where(probability > config.threshold, probability, 0.0)
        peaks = suppress(likely, config.nms_radius)
        inside = torch.zeros_like(peaks, dtype=torch.bool)
        height, width = peaks.shape
        inside[config.border : height - config.border, config.border : width - config.border] = True
        rows, columns = torch.nonzero((peaks > 0) & inside, as_tuple=True)
        # A pixel's centre is half a pixel from its corner, where COLMAP counts from.
        xy = torch.stack([columns, rows], dim=1).float() + 0.5
        positions = rescale_points(xy.cpu().numpy(), item.size, item.original_size)
        features = LocalFeatures(
            keypoints=positions.astype(np.float32),
            scales=np.full(len(xy), item.enlargement, np.float32),
            scores=peaks[rows, columns].cpu().numpy(),
            descriptors=sample(coarse, xy).cpu().numpy(),
            image_size=item.original_size,
        )
        return keep_best(features, max_keypoints=config.max_keypoints)


def forward(weights: Mapping[str, Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
    """The network on grey images.

    Args:
        weights: See `read_weights`.
        images: (B, 1, H, W), 0 to 1.

    Returns:
        Keypoint probabilities (B, 8 h, 8 w), and unit descriptors (B, 256, h, w) of cells, with h =
            H // 8 and w = W // 8.
    """
    import torch.nn.functional as F

    def layer(name: str, x: Tensor) -> Tensor:
        kernel = weights[f"{name}.weight"]
        return F.conv2d(x, kernel, weights[f"{name}.bias"], padding=kernel.shape[-1] // 2)

    x = images
    for name in ENCODER:
        x = F.relu(layer(name, x))
        if name in POOL_AFTER:
            x = F.max_pool2d(x, 2)
    logits = layer("convPb", F.relu(layer("convPa", x)))
    inside_cell = logits.softmax(1)[:, :-1]  # the last channel is "no keypoint"
    descriptors = F.normalize(layer("convDb", F.relu(layer("convDa", x))), dim=1)
    return F.pixel_shuffle(inside_cell, CELL)[:, 0], descriptors


def suppress(scores: Tensor, radius: int) -> Tensor:
    """Non-maximum suppression of an (H, W) map of scores.

    Greedy from the best score down: the maxima of the remaining scores are kept and their
    neighbourhoods cleared, until nothing remains.

    Args:
        scores: (H, W).
        radius: Scores within this many pixels of a kept one, along x and y, become 0.
    """
    import torch
    import torch.nn.functional as F

    def widened(values: Tensor) -> Tensor:
        return F.max_pool2d(values[None, None], 2 * radius + 1, 1, radius)[0, 0]

    kept = torch.zeros_like(scores)
    left = scores.clamp(min=0)
    while bool((left > 0).any()):
        best = (left == widened(left)) & (left > 0)
        kept = torch.where(best, scores, kept)
        left = torch.where(widened(best.float()) > 0, 0.0, left)
    return kept


def sample(coarse: Tensor, xy: Tensor) -> Tensor:
    """Descriptors at keypoints, bilinear between cells.

    Args:
        coarse: (256, h, w); the centre of cell c is at 8 c + 4. Beyond the centres of the outer
            cells, the nearest cell is taken.
        xy: (N, 2) COLMAP pixels of the network's input.

    Returns:
        (N, 256) unit vectors.
    """
    import torch
    import torch.nn.functional as F

    size = torch.tensor([coarse.shape[2], coarse.shape[1]], device=xy.device) * CELL
    grid = (2 * xy / size - 1)[None, None]  # -1 and 1 are the outer corners
    sampled = F.grid_sample(coarse[None], grid, "bilinear", "border", align_corners=False)
    return F.normalize(sampled[0, :, 0].T, dim=1)


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The weights in a file: ``conv1a.weight`` (64, 1, 3, 3), ``conv1a.bias`` (64,) ... float32.

    Raises WeightsError.
    """
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such weights file; give the path of a superpoint_v1.pth (from the "
            "authors' repository, magicleap/SuperPointPretrainedNetwork)"
        )
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (inputs, outputs, kernel) in LAYERS.items():
        shapes[f"{name}.weight"] = (outputs, inputs, kernel, kernel)
        shapes[f"{name}.bias"] = (outputs,)
    return checked_tensors(read_checkpoint(path), shapes, path, "superpoint_v1.pth")
