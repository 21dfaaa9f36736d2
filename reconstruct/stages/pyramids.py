"""Image pyramids of photos that are aligned with several others, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

from reconstruct.matching.many import KEPT
from reconstruct.refinement import Pyramid, RefineConfig, build_pyramid
from reconstruct.storage.cache import Cache
from reconstruct.torch_device import resolve_device
from reconstruct.types import ImageArray


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
    return Cache(
        lambda name: build_pyramid(read(name), config.max_edge, where),
        config.cache_mb << 20,
        KEPT,
    )
