"""Extractors of the library kornia: HesAffNet and Key.Net with HardNet, DISK, ALIKED, XFeat
(optional extra).

Trained weights are downloaded when they are first used, as their authors publish them (see
`kornia_weights` and `published`). kornia's keypoints count from the first pixel's centre.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from reconstruct.config import Section
from reconstruct.errors import MissingLibraryError
from reconstruct.features.kornia_weights import fill, fill_published
from reconstruct.features.resizing import ResizedImage
from reconstruct.features.selection import keep_best
from reconstruct.features.weights import tensors_hash
from reconstruct.geometry import rescale_points
from reconstruct.types import ImageArray, LocalFeatures

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MIN_EDGE = 32
"""Smaller images yield no features: the networks require between 17 and 32 pixels."""

Model = Literal[
    "hesaffnet_hardnet",
    "keynet_affnet_hardnet",
    "disk",
    "aliked-n16",
    "aliked-n16rot",
    "aliked-n32",
    "xfeat",
]

KEYNET_SIZE = 22.0
"""Scale of a region around a Key.Net keypoint, in pixels of the level where it was found."""


class KorniaConfig(Section):
    """Section ``extract.local`` with ``name: kornia``."""

    name: Literal["kornia"] = "kornia"
    model: Model = "hesaffnet_hardnet"
    """`hesaffnet_hardnet`: Hessian regions shaped by AffNet, HardNet descriptors (Mishkin et al.,
    ECCV 2018); `keynet_affnet_hardnet`: the same around keypoints of Key.Net (Barroso-Laguna et
    al., ICCV 2019); `disk` (Tyszkiewicz et al., NeurIPS 2020), trained on depth; `aliked-*` (Zhao
    et al., 2023); `xfeat` (Potje et al., CVPR 2024)."""
    weights: str | None = None
    """Path of the authors' file (disk: depth-save.pth, aliked-n16: aliked-n16.pth ..., xfeat:
    xfeat.pt), of the folder of their files (AffNet.pth, HardNet++.pth, keynet_pytorch.pth), or of a
    state dict of the whole model; null: the authors' files, downloaded once."""
    max_keypoints: int = Field(4096, ge=1)
    """Keep at most this many keypoints, the best by score."""
    upright: bool = True
    """*_hardnet: one orientation, along gravity; false: that of the gradients."""
    max_edge: int | None = Field(1600, ge=16)
    """Longest edge in pixels to which larger images are shrunk first; null: as stored."""


class Kornia:
    """See `reconstruct.features.Extractor`; the network is loaded with the first image."""

    def __init__(self, config: KorniaConfig, *, device: str = "auto") -> None:
        self.config = config
        self.dim = 64 if config.model == "xfeat" else 128
        self.device = device
        self._network: torch.nn.Module | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_network": None}

    def identity(self) -> dict[str, Any]:
        """The settings, the library's version, and the weights by content."""
        weights = tensors_hash(self._load().state_dict())
        version = metadata.version("kornia")
        own = {**self.config.identity(), "kornia": version, "weights": weights}
        # In 0.1.0 it saw zeros beside photos whose sides are no multiples of 16.
        return {**own, "input": "whole"} if self.config.model.startswith("aliked") else own

    def __call__(self, image: ImageArray) -> LocalFeatures:
        """Features of one (H, W, 3) uint8 RGB image."""
        return self.extract([self.prepare(image)])[0]

    def prepare(self, image: ImageArray) -> ResizedImage:
        """The image, shrunk to ``max_edge``."""
        return ResizedImage.shrunk(image, self.config.max_edge)

    def extract(self, batch: Sequence[ResizedImage]) -> list[LocalFeatures]:
        """Features of prepared images of one shape, in the same order.

        Raises MissingLibraryError without kornia, WeightsError without weights.
        """
        return [self._extract(item) for item in batch]

    def _extract(self, item: ResizedImage) -> LocalFeatures:
        import torch

        if min(item.size) < MIN_EDGE:
            return LocalFeatures.empty(item.original_size, self.dim)
        network = self._load()
        device = next(network.parameters()).device
        channels = item.pixels.transpose(2, 0, 1)[None].astype(np.float32)
        pixels = torch.from_numpy(channels).to(device) / 255
        with torch.inference_mode():
            search = SEARCHES.get(self.config.model, _points)
            xy, scales, scores, descriptors = (
                values.float().cpu().numpy() for values in search(network, pixels)
            )
        # kornia counts from the first pixel's centre, COLMAP from its corner.
        positions = rescale_points(xy + 0.5, item.size, item.original_size)
        features = LocalFeatures(
            keypoints=positions.astype(np.float32),
            scales=(scales * item.enlargement).astype(np.float32),
            scores=scores,
            descriptors=descriptors,
            image_size=item.original_size,
        )
        return keep_best(features, max_keypoints=self.config.max_keypoints)

    def _load(self) -> torch.nn.Module:
        if self._network is None:
            from reconstruct.torch_device import resolve_device

            network = build(self.config)
            if self.config.weights is None:
                fill_published(network, self.config.model)
            else:
                fill(network, self.config.model, Path(self.config.weights).expanduser())
            self._network = network.eval().to(resolve_device(self.device))
        return self._network


def _affine_regions(network: Any, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(N, 2) centres, (N,) scales, (N,) scores, (N, D) descriptors of a grey copy of the image."""
    grey = (image * image.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    frames, scores, descriptors = network(grey)
    # Slots that the detector did not fill hold a zero frame; all share one descriptor.
    area = frames[0, :, :, :2].det().abs()
    filled = area > 0
    return frames[0, filled, :, 2], area[filled].sqrt(), scores[0, filled], descriptors[0, filled]


def _keynet_regions(network: Any, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same as `_affine_regions`, for Key.Net, whose keypoints are whole pixels of a level."""
    xy, scales, scores, descriptors = _affine_regions(network, image)
    # Pixel i of a level is given as i * ratio; its centre is half such a pixel farther.
    ratio = scales / KEYNET_SIZE
    return xy + (ratio - 1)[:, None] / 2, scales, scores, descriptors


def _points(network: Any, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same as `_affine_regions`, for networks whose keypoints all have one scale."""
    output = network(image)[0]
    scores = getattr(output, "keypoint_scores", None)
    if scores is None:
        scores = output.detection_scores
    xy = output.keypoints.float()
    return xy, xy.new_ones(len(xy)), scores, output.descriptors


def _disk_points(network: Any, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same, for DISK, which halves the image four times and wants that to come out even."""
    import torch.nn.functional as F

    height, width = image.shape[2:]
    found = _points(network, F.pad(image, (0, -width % 16, 0, -height % 16)))
    xy = found[0]
    inside = (xy[:, 0] <= width - 1) & (xy[:, 1] <= height - 1)
    xy, scales, scores, descriptors = (values[inside] for values in found)
    return xy, scales, scores, descriptors


def _xfeat_points(network: Any, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same as `_affine_regions`, for XFeat, which shrinks its input to multiples of 32."""
    output = network.detectAndCompute(image)[0]
    size = image.new_tensor([image.shape[3], image.shape[2]])
    ratio = size / (size // 32 * 32)
    # Pixel i of the shrunk image is given as i * ratio; its centre is half such a pixel farther.
    xy = output["keypoints"].float() + (ratio - 1) / 2
    return xy, xy.new_ones(len(xy)), output["scores"], output["descriptors"]


SEARCHES: Mapping[str, Any] = {
    "hesaffnet_hardnet": _affine_regions,
    "keynet_affnet_hardnet": _keynet_regions,
    "disk": _disk_points,
    "xfeat": _xfeat_points,
}


def build(config: KorniaConfig) -> torch.nn.Module:
    """The model with random weights. Raises MissingLibraryError without kornia."""
    try:
        library: Any = importlib.import_module("kornia.feature")
    except ImportError as error:
        raise MissingLibraryError(
            "extractor kornia needs the library of that name: pip install 'reconstruct[kornia]'"
        ) from error
    model: torch.nn.Module
    if config.model in ("hesaffnet_hardnet", "keynet_affnet_hardnet"):
        model = _affnet_hardnet(library, config)
    elif config.model == "disk":
        model = library.DISK()
    elif config.model == "xfeat":
        model = library.XFeat(top_k=config.max_keypoints)
    else:
        model = library.ALIKED(config.model)
    return model


def _affnet_hardnet(library: Any, config: KorniaConfig) -> Any:
    """Like kornia's presets, except for the weights, which the presets would always download, and
    for orientations, which are those of the gradients with both detectors."""
    ori = library.PassLAF() if config.upright else library.LAFOrienter(19)
    aff = library.LAFAffNetShapeEstimator(False, preserve_orientation=False)
    if config.model == "keynet_affnet_hardnet":
        detector = library.KeyNetDetector(
            False, config.max_keypoints, ori_module=ori, aff_module=aff
        )
    else:
        pyramid = importlib.import_module("kornia.geometry").ScalePyramid
        detector = library.ScaleSpaceDetector(
            config.max_keypoints,
            resp_module=library.BlobHessian(),
            scale_pyr_module=pyramid(3, 1.6, 32, double_image=True, extra_levels=2),
            ori_module=ori,
            aff_module=aff,
            scale_space_response=False,
            minima_are_also_good=False,
            mr_size=6.0,
        )
    describe = library.LAFDescriptor(library.HardNet(False), 32, grayscale_descriptor=True)
    return library.LocalFeature(detector, describe)
