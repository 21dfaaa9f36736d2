"""Global descriptors: the data stored of each image so that similar images can be retrieved.

`gem`: generalised-mean pooling (Radenovic et al., TPAMI 2019) of the D2-Net map. `vlad`: a grid of
descriptors of the D2-Net map, aggregated later with a vocabulary of the run. `netvlad`:
Arandjelovic et al., CVPR 2016, with the authors' weights from a local file.

A `Describer` gives the *rows* of an image, (R, C): one row for gem and netvlad, a grid of them for
vlad. If the local features are D2-Net's, gem and vlad take the map of the same forward pass. What
is learned over a whole run (vocabulary, whitening) is in `reconstruct.stages.global_`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from reconstruct.config import Section
from reconstruct.features import Extractor
from reconstruct.features.d2net import D2Net, D2NetConfig
from reconstruct.features.grid import Grid
from reconstruct.features.together import Together
from reconstruct.retrieval.netvlad import NetVlad, NetVladConfig
from reconstruct.types import ImageArray, LocalFeatures

if TYPE_CHECKING:
    from torch import Tensor

Rows = NDArray[Any]
"""(R, C) float: the data stored of one image."""


class _TrunkConfig(Section):
    """Settings that gem and vlad have in common."""

    dim: int = Field(512, ge=1)
    """Largest dimension of a descriptor after whitening; small collections get shorter ones."""
    whitening: float = Field(0.25, ge=0, le=1)
    """Strength of the whitening learned on the images of the run: 0 keeps the variances of the
    principal directions, 1 makes them all equal."""
    weights: str = "vgg16"
    """Weights of the trunk if the local features are not D2-Net's; else theirs are used."""
    max_edge: int = Field(1024, ge=16)
    """Images are shrunk to this longest edge if the local features are not D2-Net's."""


class GemConfig(_TrunkConfig):
    """Section ``extract.global`` with ``name: gem``."""

    name: Literal["gem"] = "gem"
    power: float = Field(3.0, gt=0)
    """Exponent of the mean: 1 is the mean of the map, infinity its maximum."""


class VladConfig(_TrunkConfig):
    """Section ``extract.global`` with ``name: vlad``."""

    name: Literal["vlad"] = "vlad"
    clusters: int = Field(32, ge=1)
    """Number of words of the vocabulary, which is learned on the images that are mapped."""
    grid: int = Field(24, ge=1)
    """The map is averaged to at most this many rows and columns of descriptors."""


GlobalConfig = Annotated[GemConfig | VladConfig | NetVladConfig, Field(discriminator="name")]


class Describer(Protocol):
    """Computes local features and the rows of a global descriptor, in one pass if possible."""

    def identity(self) -> Any:
        """All that decides the rows, as JSON types."""

    def prepare(self, image: ImageArray) -> Any:
        """The input of the global descriptor, made in loader threads; None if it needs none."""

    def extract(
        self, batch: Sequence[Any], inputs: Sequence[Any]
    ) -> tuple[list[LocalFeatures], list[Rows]]:
        """Features and rows of images of one shape.

        Args:
            batch: From the ``prepare`` of the local extractor.
            inputs: From the ``prepare`` of this describer.
        """


def create_describer(config: Any, local: Extractor, device: str) -> Describer:
    """The describer for a section ``extract.global``.

    Args:
        config: The section.
        local: The extractor of local features beside it.
        device: ``auto`` or the name of a torch device.
    """
    if isinstance(config, NetVladConfig):
        return Separate(local, NetVlad(config, device), {})
    settings = {"grid": config.grid} if isinstance(config, VladConfig) else {"power": config.power}
    settings["name"] = config.name
    if isinstance(local, D2Net | Grid) or (isinstance(local, Together) and local.d2net is not None):
        return SharedPass(config, local, settings)
    trunk = D2NetConfig(weights=config.weights, max_edge=config.max_edge, max_sum_edges=None)
    return Separate(local, TrunkPooling(config, D2Net(trunk, device=device)), settings)


MakesMaps = D2Net | Grid | Together
"""Extractors that can be observed while they make D2-Net's maps."""


class SharedPass:
    """Pools the map that D2-Net makes for its local features, or the grid of dense matching."""

    def __init__(self, config: GemConfig | VladConfig, local: MakesMaps, settings: Any) -> None:
        self.config, self.local, self.settings = config, local, settings

    def identity(self) -> Any:
        """The pooling, and all settings of the local extractor."""
        local = self.local.d2net if isinstance(self.local, Together) else self.local
        assert local is not None
        return [self.settings, local.identity()]

    def prepare(self, image: ImageArray) -> None:
        """None: the input of the local extractor is enough."""

    def extract(
        self, batch: Sequence[Any], inputs: Sequence[Any]
    ) -> tuple[list[LocalFeatures], list[Rows]]:
        """Features and rows from one forward pass."""
        rows: list[Rows] = [_none()] * len(batch)

        def observe(maps: Tensor) -> None:
            rows[:] = pool(maps, self.config)

        return self.local.extract(batch, observe), rows


class GlobalNetwork(Protocol):
    """A network that computes rows independently of local features."""

    def identity(self) -> Any:
        """All that decides the rows, as JSON types."""

    def prepare(self, image: ImageArray) -> Any:
        """The input of `rows`, from an (H, W, 3) uint8 RGB image."""

    def rows(self, item: Any) -> Rows:
        """(R, C) rows of one prepared image."""


class Separate:
    """Any local extractor, and a separate network for the global descriptor."""

    def __init__(self, local: Extractor, network: GlobalNetwork, settings: Any) -> None:
        self.local, self.network, self.settings = local, network, settings

    def identity(self) -> Any:
        """The pooling and the network; local features have no influence."""
        return [self.settings, self.network.identity()]

    def prepare(self, image: ImageArray) -> Any:
        """The input of the network."""
        return self.network.prepare(image)

    def extract(
        self, batch: Sequence[Any], inputs: Sequence[Any]
    ) -> tuple[list[LocalFeatures], list[Rows]]:
        """Features and rows from two passes."""
        return self.local.extract(batch), [self.network.rows(item) for item in inputs]


class TrunkPooling:
    """gem or vlad rows from a D2-Net trunk whose local features are not used."""

    def __init__(self, config: GemConfig | VladConfig, trunk: D2Net) -> None:
        self.config, self.trunk = config, trunk

    def identity(self) -> Any:
        """The identity of the trunk."""
        return self.trunk.identity()

    def prepare(self, image: ImageArray) -> Any:
        """Shrink an image to the size of the trunk's input."""
        return self.trunk.prepare(image)

    def rows(self, item: Any) -> Rows:
        """The pooled map of one prepared image."""
        maps = self.trunk.maps([item])
        return _none() if maps is None else pool(maps, self.config)[0]


def pool(maps: Tensor, config: GemConfig | VladConfig) -> list[Rows]:
    """Rows of each of (B, C, h, w) maps; float16 for the grid, which is large."""
    if isinstance(config, VladConfig):
        return [item.cpu().numpy().astype(np.float16) for item in grid_rows(maps, config.grid)]
    return [item[None].cpu().numpy() for item in gem(maps, config.power)]


def gem(maps: Tensor, power: float) -> Tensor:
    """Generalised means over the cells of (B, C, h, w) maps: (B, C) unit vectors.

    Negative values (maps without the last ReLU) count as zero.
    """
    import torch

    x = maps.clamp(min=1e-6)
    peak = x.amax(dim=(2, 3), keepdim=True)  # keeps the powers in float32's range
    means = peak[..., 0, 0] * (x / peak).pow(power).mean(dim=(2, 3)).pow(1.0 / power)
    return torch.nn.functional.normalize(means, dim=1)


def grid_rows(maps: Tensor, size: int) -> Tensor:
    """Unit descriptors of a grid over each map.

    Args:
        maps: (B, C, h, w).
        size: The grid has at most ``size`` x ``size`` blocks of cells, which are averaged.

    Returns:
        (B, R, C) unit vectors.
    """
    import torch

    shape = min(size, maps.shape[2]), min(size, maps.shape[3])
    means = torch.nn.functional.adaptive_avg_pool2d(maps, shape)
    return torch.nn.functional.normalize(means.flatten(2).transpose(1, 2), dim=2)


def _none() -> Rows:
    """The rows of an image that is too small for the network."""
    return np.zeros((1, D2Net.dim), np.float32)
