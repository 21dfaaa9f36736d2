"""Keypoints on a grid, each with the descriptor of the D2-Net map around it: for dense matching.

They are matched by `reconstruct.matching.dense` (``match.method: dense``). As the grid does not
depend on the pair, the matches of all pairs of an image share its keypoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from reconstruct.config import Section
from reconstruct.features.d2net import D2Net, D2NetConfig
from reconstruct.features.resizing import ResizedImage
from reconstruct.geometry import rescale_points
from reconstruct.types import ImageArray, LocalFeatures

if TYPE_CHECKING:
    from torch import Tensor


class GridConfig(Section):
    """Section ``extract.local`` with ``name: grid``."""

    name: Literal["grid"] = "grid"
    weights: str = "vgg16"
    """Weights of the trunk, as for extractor d2net."""
    max_edge: int | None = Field(1600, ge=16)
    """Images are shrunk until their longest edge has at most this many pixels."""
    step: int = Field(1, ge=1)
    """Edge of a block of cells of the map (4 pixels wide each) that is averaged to one keypoint. 2
    takes a quarter of the memory and of the disk."""


class Grid:
    """Keypoints row by row. ``scales`` are the width of a cell in pixels of the photo, ``scores``
    the length of the descriptor before normalisation."""

    dim = 512

    def __init__(self, config: GridConfig, *, device: str = "auto") -> None:
        self.config = config
        settings = D2NetConfig(weights=config.weights, max_edge=config.max_edge, max_sum_edges=None)
        self.trunk = D2Net(settings, device=device)

    def identity(self) -> dict[str, Any]:
        """The settings, with the weights by content."""
        return {**self.config.identity(), "trunk": self.trunk.identity()}

    def __call__(self, image: ImageArray) -> LocalFeatures:
        """Features of one (H, W, 3) uint8 RGB image."""
        return self.extract([self.prepare(image)])[0]

    def prepare(self, image: ImageArray) -> ResizedImage:
        """Shrink an image to network size."""
        return self.trunk.prepare(image)

    def extract(
        self, batch: Sequence[ResizedImage], observe: Callable[[Tensor], None] | None = None
    ) -> list[LocalFeatures]:
        """Features of prepared images of one shape, in the same order.

        Args:
            batch: Images prepared by `prepare`.
            observe: Called with the (B, 512, h, w) maps.
        """
        if not batch:
            return []
        maps = self.trunk.maps(batch)
        if maps is None:
            return [LocalFeatures.empty(item.original_size, self.dim) for item in batch]
        if observe is not None:
            observe(maps)
        return [self._features(item, cells) for item, cells in zip(batch, maps, strict=True)]

    def _features(self, item: ResizedImage, cells: Tensor) -> LocalFeatures:
        """Features of a photo from its (512, h, w) map."""
        import torch

        from reconstruct.features.vgg import STRIDE_PX

        step = self.config.step
        pooled = torch.nn.functional.avg_pool2d(cells, step) if step > 1 else cells
        _, rows, columns = pooled.shape
        if not rows * columns:
            return LocalFeatures.empty(item.original_size, self.dim)
        vectors = pooled.flatten(1).T
        length = vectors.norm(dim=1)
        # Cell p of the map is centred at 4 (p + 1) COLMAP pixels (see alignment.py); `step` cells
        # from p on have their common centre (step - 1) / 2 cells further.
        x, y = (STRIDE_PX * (np.arange(n) * step + (step - 1) / 2 + 1.0) for n in (columns, rows))
        points = np.stack(np.meshgrid(x, y), axis=2).reshape(-1, 2)
        width_px = STRIDE_PX * step * item.original_size[0] / item.size[0]
        return LocalFeatures(
            keypoints=rescale_points(points, item.size, item.original_size).astype(np.float32),
            scales=np.full(len(points), width_px, np.float32),
            scores=length.cpu().numpy(),
            descriptors=(vectors / length.clamp(min=1e-9)[:, None]).cpu().numpy(),
            image_size=item.original_size,
        )
