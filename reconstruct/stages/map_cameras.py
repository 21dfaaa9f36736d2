"""The cameras of the images of a map: what a two-view geometry and the database depend on."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from reconstruct import colmap, features
from reconstruct.config import Section
from reconstruct.datasets import cameras
from reconstruct.errors import ImageError
from reconstruct.images import image_size
from reconstruct.stages import Context
from reconstruct.stages.extract import Extract


@dataclass(frozen=True, slots=True, eq=False)
class ImageCameras:
    """The cameras of images, without the stages that they come from.

    Args:
        assignment: The camera of each image.
        sizes: Image name -> (width, height) in pixels.
        local: Settings of the extractor.
    """

    assignment: colmap.CameraAssignment
    sizes: Mapping[str, tuple[int, int]]
    local: Section

    def __getitem__(self, name: str) -> colmap.Camera:
        """The camera of an image."""
        return self.assignment.cameras[self.assignment.camera_ids[name]]

    def input_scale(self, name: str) -> float:
        """How many pixels of a photo a pixel of the extractor's input is wide."""
        return features.input_scale(self.local, self.sizes[name])


class MapCameras:
    """The cameras of the images of a map, and what decides them."""

    def __init__(self, context: Context, config: cameras.CamerasConfig, extract: Extract) -> None:
        cameras.check(config, context.dataset)
        self.context = context
        self.config = config
        self.extract = extract

    @cached_property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """(width, height) of the images of the map."""
        names = set(self.extract.to_map())
        stored = names & set(self.extract.features.fingerprints())
        sizes = self.extract.features.image_sizes(sorted(stored))
        for name in names - stored:  # a plan looks ahead of extraction
            with contextlib.suppress(ImageError):
                sizes[name] = image_size(self.context.dataset.path(name))
        return sizes

    def input_scale(self, name: str) -> float:
        """How many pixels of a photo a pixel of the extractor's input is wide."""
        return self.by_name.input_scale(name)

    @cached_property
    def assignment(self) -> colmap.CameraAssignment:
        """The camera of each image, and which of them are known."""
        return cameras.assign(self.config, self.context.dataset, self.sizes)

    @cached_property
    def identities(self) -> Mapping[str, Any]:
        """Image name -> JSON-able: what decides its camera."""
        contents = self.extract.known_fingerprints()
        return cameras.identities(self.config, self.context.dataset, self.sizes, contents)

    @cached_property
    def by_name(self) -> ImageCameras:
        """The cameras alone, for workers."""
        return ImageCameras(self.assignment, self.sizes, self.extract.config.local)
