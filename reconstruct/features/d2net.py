"""D2-Net (Dusmanu et al., CVPR 2019, arXiv 1905.03561) as an extractor.

Keypoints are returned in COLMAP pixels of the original image. Importing this module loads no torch,
and making a `D2Net` reads no weights: both happen with the first image.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import numpy as np
from pydantic import BeforeValidator, Field, PositiveInt, field_validator, model_validator

from reconstruct.config import NotIdentity, Section, tuple_from_list
from reconstruct.errors import suggestion
from reconstruct.features.resizing import ResizedImage, shrink_as_release
from reconstruct.features.selection import keep_best
from reconstruct.features.tiles import OVERLAP, in_photo, joined, tile_grid
from reconstruct.features.weights import (
    SUFFIXES,
    TrunkWeights,
    load_weights,
    valid_names,
)
from reconstruct.geometry import rescale_points
from reconstruct.images import shrink
from reconstruct.types import ImageArray, LocalFeatures

if TYPE_CHECKING:
    from torch import Tensor

    from reconstruct.features.pyramid import FeatureNetwork, Keypoints


def _path_from_text(value: Any) -> Any:
    return Path(value).expanduser() if isinstance(value, str) else value


class D2NetConfig(Section):
    """Settings of D2-Net; the names are those of the pipeline file."""

    name: Literal["d2net"] = "d2net"

    weights: str = "vgg16"
    """`vgg16` (ImageNet), `d2_homography` (fine-tuned from it; both inside the package), `d2_ots`,
    `d2_tf`, `d2_tf_no_phototourism` (the authors', downloaded once) or the path of a file, see
    `reconstruct.features.weights`."""

    multiscale: bool = False
    """Search an image pyramid with the levels `scales` instead of the image alone: about 5 times
    the work."""

    scales: Annotated[tuple[float, ...], BeforeValidator(tuple_from_list)] = (0.5, 1.0, 2.0)
    """Sizes of the pyramid's levels relative to the network input, ascending."""

    levels: Literal["summed", "apart"] = "summed"
    """`summed`: the map of a level is added to that of the next finer one, where no keypoint is
    looked for at places that have one (the paper's). `apart`: each level on its own, which finds
    more where photos differ in scale, with `match.candidates` above 1 most."""

    max_edge: Annotated[int, Field(ge=16)] | None = 1600
    """Images are shrunk until their longest edge has at most this many pixels."""

    max_sum_edges: Annotated[int, Field(ge=32)] | None = 2800
    """Then they are shrunk until width + height is at most this many pixels."""

    tiles: bool = False
    """Photos beyond these limits are not shrunk but searched at full resolution, in overlapping
    tiles of that size. This takes the memory of one tile, and 2 kB a keypoint: limit these by
    `max_keypoints`, of which each tile then gets its share."""

    cell_center: Literal["corrected", "release"] = "corrected"
    """`release` reproduces the positions of the authors' code, up to 2 px off; see
    `reconstruct.features.alignment`."""

    use_relu: bool = True
    """Apply the ReLU after the last convolution."""

    max_keypoints: PositiveInt | None = None
    """Keep at most this many keypoints, the best by score. A D2-Net score is a raw activation,
    comparable within a neighbourhood but hardly across an image, so this favours high contrast;
    `min_distance_px` keeps the keypoints spread out."""

    score_threshold: float | None = None
    """Keypoints with a smaller score are dropped."""

    min_distance_px: Annotated[float, Field(gt=0)] | None = None
    """Among keypoints closer together than this, in pixels of the photo, the best is kept."""

    fp16: bool = False
    """Half-precision convolutions on CUDA: faster, and positions and scores change slightly."""

    backend: Annotated[Literal["auto", "torch", "onnxruntime"], NotIdentity] = "auto"
    """Library that runs the network. `auto`: onnxruntime on a CPU, torch elsewhere. Results agree
    to 1e-3, as between two devices, so this is not part of the fingerprint."""

    mirrors: Annotated[tuple[str, ...], BeforeValidator(tuple_from_list), NotIdentity] = ()
    """Base addresses for downloads that are tried before the authors' addresses."""

    cache_dir: Annotated[Path | None, BeforeValidator(_path_from_text), NotIdentity] = None
    """Folder of downloads; by default $RECONSTRUCT_CACHE or the user's cache folder."""

    @model_validator(mode="after")
    def _check_tiles(self) -> D2NetConfig:
        if self.tiles and (self.tile_edge is None or self.tile_edge < MIN_TILE_EDGE):
            raise ValueError(
                f"tiles: needs max_edge (and half of max_sum_edges) of at least {MIN_TILE_EDGE}"
            )
        return self

    @property
    def tile_edge(self) -> int | None:
        """Width and height of a tile: a square within the limits."""
        limits = [self.max_edge, self.max_sum_edges and self.max_sum_edges // 2]
        return min((limit for limit in limits if limit is not None), default=None)

    def identity(self) -> dict[str, Any]:
        """See `Section.identity`; settings that came later are in it where they are not what was
        done before, so that older features stay valid."""
        settings = super().identity()
        if settings["tiles"] is False:
            del settings["tiles"]
        if settings["levels"] == "summed":
            del settings["levels"]
        return settings

    @field_validator("weights")
    @classmethod
    def _known_weights(cls, value: str) -> str:
        if value not in valid_names() and not value.endswith(SUFFIXES):
            raise ValueError(
                f"unknown weights {value!r}{suggestion(value, valid_names())}, "
                f"or the path of a file ({', '.join(SUFFIXES)})"
            )
        return value

    @field_validator("scales")
    @classmethod
    def _ascending_scales(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        ascending = all(a < b for a, b in itertools.pairwise(value))
        if not value or not ascending or not 0 < value[0] <= value[-1] <= MAX_SCALE:
            raise ValueError(
                f"expected one or more numbers in (0, {MAX_SCALE:g}], ascending, "
                f"e.g. [0.5, 1.0, 2.0], got {list(value)}"
            )
        return value


MIN_TILE_EDGE: Final = 3 * OVERLAP
"""Smaller tiles are mostly overlap."""

MAX_SCALE: Final = 8.0
"""A larger scale is taken for a typing error: memory grows with its square."""


class D2Net:
    """The extractor behind ``load_extractor("d2net")``; see `reconstruct.features.Extractor`.

    It can be pickled at any time; weights and network are then loaded again by the receiving
    process.
    """

    dim = 512

    def __init__(self, config: D2NetConfig, *, device: str = "auto") -> None:
        self.config = config
        self.device = device
        self._weights: TrunkWeights | None = None
        self._network: FeatureNetwork | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_weights": None, "_network": None}

    def __call__(self, image: ImageArray) -> LocalFeatures:
        """Features of one (H, W, 3) uint8 RGB image."""
        return self.extract([self.prepare(image)])[0]

    def prepare(self, image: ImageArray) -> ResizedImage:
        """Shrink an image to network size: CPU only, for loader threads."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(
                f"expected an (H, W, 3) uint8 RGB image, got {image.dtype} of shape {image.shape}"
            )
        size = (image.shape[1], image.shape[0])
        if self.config.tiles:
            return ResizedImage(np.ascontiguousarray(image), size)
        return ResizedImage(self._shrunk(image), size)

    def _shrunk(self, image: ImageArray) -> ImageArray:
        limits = (self.config.max_edge, self.config.max_sum_edges)
        resize = shrink_as_release if self.config.cell_center == "release" else shrink
        return resize(image, *limits)

    def extract(
        self, batch: Sequence[ResizedImage], observe: Callable[[Tensor], None] | None = None
    ) -> list[LocalFeatures]:
        """Features of prepared images of one shape, in the same order.

        Args:
            batch: Images prepared by `prepare`.
            observe: Called with the (B, 512, h, w) maps of the pyramid level nearest to scale 1, if
                the images are large enough for one.

        Raises:
            WeightsError: The weights cannot be obtained.
            ValueError: The shapes differ.
        """
        if len({item.shape for item in batch}) > 1:
            raise ValueError(f"expected one shape, got {sorted({item.shape for item in batch})}")
        if not batch:
            return []
        import torch

        with torch.inference_mode():
            if self.config.tiles:
                maps = self.maps(batch) if observe is not None else None
                if observe is not None and maps is not None:
                    observe(maps)
                return [self._in_tiles(item) for item in batch]
            searched = self._search([item.pixels for item in batch], observe)
            return [
                self._finish(keypoints, item, self.config.max_keypoints)
                for keypoints, item in zip(searched, batch, strict=True)
            ]

    def _in_tiles(self, item: ResizedImage) -> LocalFeatures:
        """Features of a photo at full resolution, tile by tile."""
        edge, limit = self.config.tile_edge, self.config.max_keypoints
        assert edge is not None  # the configuration was checked
        tiles = tile_grid(item.original_size, edge)
        share = None if limit is None else -(-limit // len(tiles))
        parts = []
        for tile in tiles:
            (left, top), (right, bottom) = tile.start, tile.stop
            pixels = np.ascontiguousarray(item.pixels[top:bottom, left:right])
            part = ResizedImage(pixels, (right - left, bottom - top))
            (keypoints,) = self._search([pixels], None)
            found = in_photo(self._finish(keypoints, part, None), tile, item.original_size)
            parts.append(self._best(found, share))
        return self._best(joined(parts), limit)

    def maps(self, batch: Sequence[ResizedImage]) -> Tensor | None:
        """(B, 512, h, w) maps of prepared images of one shape, without searching them for
        keypoints; None if the images are too small for the network."""
        import torch

        from reconstruct.features.vgg import MIN_EDGE_PX

        small = [self._shrunk(i.pixels) if self.config.tiles else i.pixels for i in batch]
        if min(small[0].shape[:2]) < MIN_EDGE_PX:
            return None
        with torch.inference_mode():
            images, network = self._forward(small)
            return network(images)

    def identity(self) -> dict[str, Any]:
        """The settings that decide the result, with the weights identified by content, not by
        name."""
        return self.config.identity() | {"weights": self._load().content_hash()}

    def _load(self) -> TrunkWeights:
        if self._weights is None:
            config = self.config
            self._weights = load_weights(
                config.weights, cache_dir=config.cache_dir, mirrors=config.mirrors
            )
        return self._weights

    def _search(
        self, pixels: Sequence[ImageArray], observe: Callable[[Tensor], None] | None
    ) -> list[Keypoints | None]:
        from reconstruct.features.alignment import Corners, HalfPixel
        from reconstruct.features.pyramid import extract_pyramid

        images, network = self._forward(pixels)
        scales = self.config.scales if self.config.multiscale else (1.0,)
        alignment = Corners() if self.config.cell_center == "release" else HalfPixel()
        shown = min(scales, key=lambda scale: abs(scale - 1.0))

        def show(scale: float, maps: Tensor) -> None:
            if observe is not None and scale == shown:
                observe(maps)

        summed = self.config.levels == "summed"
        return extract_pyramid(images, network, scales, alignment, show, summed=summed)

    def _forward(self, pixels: Sequence[ImageArray]) -> tuple[Tensor, FeatureNetwork]:
        """The normalised images on the device, and the network."""
        from reconstruct.features.backend import choose_backend, make_network
        from reconstruct.features.vgg import normalised
        from reconstruct.torch_device import resolve_device

        config = self.config
        device = resolve_device(self.device)
        if self._network is None:
            self._network = make_network(
                choose_backend(config.backend, device),
                self._load().tensors,
                use_relu=config.use_relu,
                device=device,
                fp16=config.fp16,
            )
        return normalised(pixels, self._load().preprocessing, device), self._network

    def _finish(
        self, keypoints: Keypoints | None, item: ResizedImage, max_keypoints: int | None
    ) -> LocalFeatures:
        """Keypoints in the network input -> features of the photo."""
        if keypoints is None:
            return LocalFeatures.empty(item.original_size, self.dim)
        positions = keypoints.positions.cpu().numpy()
        if self.config.cell_center == "release":
            # The release scales positions that count from the first pixel's centre.
            xy = rescale_points(positions - 0.5, item.size, item.original_size) + 0.5
        else:
            xy = rescale_points(positions, item.size, item.original_size)
        features = LocalFeatures(
            keypoints=xy.astype(np.float32),
            scales=keypoints.scales.cpu().numpy(),
            scores=keypoints.scores.cpu().numpy(),
            descriptors=keypoints.descriptors.cpu().numpy(),
            image_size=item.original_size,
        )
        return self._best(features, max_keypoints)

    def _best(self, features: LocalFeatures, max_keypoints: int | None) -> LocalFeatures:
        return keep_best(
            features,
            score_threshold=self.config.score_threshold,
            min_distance_px=self.config.min_distance_px,
            max_keypoints=max_keypoints,
        )
