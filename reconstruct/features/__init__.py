"""Local feature extractors behind one protocol.

A new extractor is one file (its settings, a `Section` with ``name: Literal["..."]``, and its class)
and one line in `EXTRACTORS`. Modules are imported only when they are needed.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from reconstruct.config import Section, validate
from reconstruct.errors import UnknownNameError
from reconstruct.types import ImageArray, LocalFeatures

EXTRACTORS: dict[str, tuple[str, str, str]] = {
    # name: (module, settings, class)
    "d2net": ("reconstruct.features.d2net", "D2NetConfig", "D2Net"),
    "grid": ("reconstruct.features.grid", "GridConfig", "Grid"),
    "hesaff": ("reconstruct.features.hesaff", "HesaffConfig", "Hesaff"),
    "kornia": ("reconstruct.features.kornia", "KorniaConfig", "Kornia"),
    "precomputed": ("reconstruct.features.precomputed", "PrecomputedConfig", "Precomputed"),
    "r2d2": ("reconstruct.features.r2d2", "R2D2Config", "R2D2"),
    "sift": ("reconstruct.features.sift", "SiftConfig", "Sift"),
    "superpoint": ("reconstruct.features.superpoint", "SuperPointConfig", "SuperPoint"),
    "together": ("reconstruct.features.together", "TogetherConfig", "Together"),
}


class Extractor(Protocol):
    """From pixels to `LocalFeatures`, in two steps so that the first can overlap the second."""

    dim: int
    """Length of a descriptor."""

    def __call__(self, image: ImageArray) -> LocalFeatures:
        """Features of one image, (H, W, 3) uint8 RGB."""

    def prepare(self, image: ImageArray) -> Any:
        """The steps that need no accelerator (resizing, colour): they run in loader threads.

        The result has ``shape``; images of equal shape may be extracted in one batch.
        """

    def extract(self, batch: Sequence[Any]) -> list[LocalFeatures]:
        """Features of prepared images of one shape, in the same order."""

    def identity(self) -> dict[str, Any]:
        """All that decides the result (settings, content hash of the weights), as JSON types."""


@runtime_checkable
class ReadsFiles(Protocol):
    """An extractor whose features are in files beside the images, located by the image's name."""

    def file(self, root: Path, name: str) -> Path:
        """The file that belongs to image ``name`` below ``root``; it need not exist."""

    def prepare_file(self, root: Path, name: str) -> Any:
        """Used instead of `Extractor.prepare`. Raises ImageError if the file cannot be used."""


def config_class(name: str) -> type[Section]:
    """The settings class of extractor ``name``. Raises UnknownNameError listing the valid names."""
    module, config, _ = _entry(name)
    result: type[Section] = getattr(importlib.import_module(module), config)
    return result


def create(config: Any, device: str = "auto") -> Extractor:
    """The extractor that ``config`` (a `Section` with a ``name``) describes.

    Args:
        config: Settings of one of the extractors.
        device: ``auto`` or the name of a torch device.
    """
    module, _, cls = _entry(config.name)
    extractor: Extractor = getattr(importlib.import_module(module), cls)(config, device=device)
    return extractor


def load_extractor(name: str, *, device: str = "auto", **settings: Any) -> Extractor:
    """An extractor by name, e.g. ``load_extractor("d2net", weights="vgg16", max_edge=1024)``.

    Args:
        name: A name registered in `EXTRACTORS`.
        device: ``auto`` or the name of a torch device.
        settings: The extractor's settings, as in section ``extract.local`` of a pipeline file.

    Raises:
        UnknownNameError: The name is not registered.
        ConfigError: A setting is wrong.
    """
    config = validate(config_class(name), {"name": name, **settings}, f"load_extractor({name!r})")
    return create(config, device)


def input_scale(config: Section, image_size: tuple[int, int]) -> float:
    """How many pixels of a photo a pixel of the extractor's input is wide.

    Keypoints are found in photos shrunk to the extractor's ``max_edge`` (and ``max_sum_edges``), so
    their errors, and thresholds on them, are in pixels of that size.

    Args:
        config: Settings of an extractor.
        image_size: (width, height) of the photo in pixels.

    Returns:
        At least 1: smaller photos are not enlarged. 1 where photos are looked at in tiles; the
        largest of its parts where there are several extractors.
    """
    parts: Sequence[Section] = getattr(config, "parts", ())
    if parts:
        return max(input_scale(part, image_size) for part in parts)
    if getattr(config, "tiles", False):
        return 1.0
    limits: list[tuple[int | None, int]] = [
        (getattr(config, "max_edge", None), max(image_size)),
        (getattr(config, "max_sum_edges", None), sum(image_size)),
    ]
    return max([1.0, *(edge / limit for limit, edge in limits if limit is not None)])


def _entry(name: str) -> tuple[str, str, str]:
    if name not in EXTRACTORS:
        raise UnknownNameError("extractor", name, EXTRACTORS)
    return EXTRACTORS[name]
