"""Image pyramids of photos that are aligned with several others, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from reconstruct.matching.many import KEPT
from reconstruct.refinement import Pyramid, RefineConfig, build_pyramid
from reconstruct.storage.cache import Cache
from reconstruct.torch_device import resolve_device
from reconstruct.types import ImageArray

if TYPE_CHECKING:
    import torch


def cached_pyramids(
    read: Callable[[str], ImageArray], config: RefineConfig, device: str
) -> Cache[Pyramid]:
    """Name of a photo -> its pyramid, made when it is asked for and kept as long as there is room.

    Args:
        read: Name -> (H, W, 3) uint8 pixels.
        config: Size of the pyramids (``max_edge``), and memory for them (``cache_mb``).
        device: ``auto`` or the name of a torch device, on which the levels are.
    """
    where = resolve_device(device)
    return Cache(lambda name: pyramid_of(read(name), config, where), config.cache_mb << 20, KEPT)


def pyramid_of(image: ImageArray, config: RefineConfig, device: torch.device) -> Pyramid:
    """The pyramid of a photo, (H, W, 3) uint8, with the maps that the settings ask for."""
    describe = None
    if config.min_map_similarity is not None:
        from reconstruct.features.shallow import shallow_maps  # loads torch

        describe = partial(shallow_maps, device=device)
    return build_pyramid(image, config.max_edge, device, describe=describe)
