"""From network input to keypoints over an image pyramid, coarse to fine.

The map of a level is the network's plus the interpolated map of the level before, so that a fine
cell also sees the context of the coarse ones; cells detected on a coarse level are banned on the
finer ones (Dusmanu et al., CVPR 2019, section 4.4). One level of scale 1 is single-scale D2-Net.
Or each level is on its own: a place then has as many descriptors as there are levels on which it
was found, and one of them looks like that of a photo taken from farther away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reconstruct.features.alignment import Alignment, Size
from reconstruct.features.detection import detect, localize
from reconstruct.features.vgg import MIN_EDGE_PX

FeatureNetwork = Callable[[Tensor], Tensor]
"""(B, 3, H, W) normalised images -> (B, 512, h, w) float32 maps that the caller may change."""

Observer = Callable[[float, Tensor], None]
"""Called with the scale of a level and its maps as the network gives them, before they are
changed."""


@dataclass(frozen=True, slots=True, eq=False)
class Keypoints:
    """N keypoints of one image.

    Attributes:
        positions: (N, 2) float64 (x, y) in COLMAP pixels of the network input.
        scales: (N,) 1 / pyramid scale.
        scores: (N,).
        descriptors: (N, C).
    """

    positions: Tensor
    scales: Tensor
    scores: Tensor
    descriptors: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Level:
    size: Size
    features: Tensor
    banned: Tensor


def extract_pyramid(
    images: Tensor,
    network: FeatureNetwork,
    scales: Sequence[float],
    alignment: Alignment,
    observe: Observer = lambda scale, maps: None,
    *,
    summed: bool = True,
) -> list[Keypoints | None]:
    """Keypoints of images over a pyramid.

    A level that is too small, or without keypoints, does not end the pyramid. Where levels are
    summed, scores are divided by the level's number, counting from 1.

    Args:
        images: (B, 3, H, W) normalised.
        network: The trunk.
        scales: Sizes of the levels relative to the images, ascending.
        alignment: The convention for positions.
        observe: Called for each level.
        summed: Whether finer levels build on the coarser ones; if not, scores count in full.

    Returns:
        The keypoints of each image; None if no level is large enough for the network.
    """
    input_size: Size = (images.shape[2], images.shape[3])
    by_image: list[list[Keypoints]] = [[] for _ in images]
    previous: _Level | None = None
    for number, scale in enumerate(scales, start=1):
        size = (int(input_size[0] * scale), int(input_size[1] * scale))
        if min(size) < MIN_EDGE_PX:
            continue
        maps = network(alignment.resize(images, size))
        observe(scale, maps)
        level = _level(maps, size, previous, alignment)
        previous = None  # the coarser map, while this one is searched
        for index, features in enumerate(level.features):
            keypoints = _search(features, level.banned[index], alignment, size, input_size)
            keypoints.scales.fill_(1 / scale)
            if summed:
                keypoints.scores.div_(number)
            by_image[index].append(keypoints)
        previous = level if summed else None
    return [_join(levels) if levels else None for levels in by_image]


def _level(features: Tensor, size: Size, previous: _Level | None, alignment: Alignment) -> _Level:
    """Sum of this level's map and that of the level before, and the cells banned by earlier
    levels."""
    batch, _, height, width = features.shape
    if previous is None:
        banned = torch.zeros((batch, height, width), dtype=torch.bool, device=features.device)
    else:
        alignment.add_coarser(features, previous.features, size, previous.size)
        banned = alignment.carry(previous.banned, (height, width), size, previous.size)
    return _Level(size, features, banned)


def _search(
    features: Tensor, banned: Tensor, alignment: Alignment, size: Size, input_size: Size
) -> Keypoints:
    """Keypoints of one map. All its detections are added to ``banned``, in place, including those
    that the sub-pixel step drops."""
    detections = detect(features)
    detections = detections.select(~banned[detections.rows, detections.columns])
    banned[detections.rows, detections.columns] = True
    points = localize(features, detections)
    positions = alignment.to_input(points.positions, size, input_size)
    return Keypoints(positions, torch.empty_like(points.scores), points.scores, points.descriptors)


def _join(levels: Sequence[Keypoints]) -> Keypoints:
    return Keypoints(
        torch.cat([level.positions for level in levels]),
        torch.cat([level.scales for level in levels]),
        torch.cat([level.scores for level in levels]),
        torch.cat([level.descriptors for level in levels]),
    )
