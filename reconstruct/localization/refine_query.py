"""Refine, for localization: a query's keypoints against the photos of the map that it matches.

The map stays as it is: a query's keypoints move to where its patches look like those around the
points of the map. Only matches that agree with a first pose are aligned, each with the patch where
the model sees its point; the pose is then estimated again from all matches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from reconstruct import colmap
from reconstruct.images import read_image
from reconstruct.refinement import Anchors, Pyramid, RefineConfig, refine_against
from reconstruct.stages.pyramids import pyramid_of
from reconstruct.storage.cache import Cache
from reconstruct.torch_device import resolve_device
from reconstruct.types import FloatArray, ImageArray, PointMap, PoseEstimate


class RefineQueryConfig(RefineConfig):
    """Section ``localize.refine``: as section ``refine``, which works on the map."""

    images: int = Field(default=2, ge=1)
    """Images of the map against which each keypoint is refined: among those that match it, the ones
    most similar to the query."""


Matches = Mapping[str, NDArray[np.uint32]]
"""Image of the map -> (M, 2) indices, the query's keypoint first."""


def agreeing_matches(
    found: PoseEstimate,
    keypoints: FloatArray,
    matches: Matches,
    tracks: PointMap,
    camera: colmap.Camera,
    max_error_px: float,
) -> dict[str, NDArray[np.uint32]]:
    """The matches whose 3D point lies within ``max_error_px`` of the keypoint under a found pose.

    Images without any are left out; rows are sorted by the query's keypoint. camera: its model;
    the parameters are those found.
    """
    assert found.cam_from_world is not None
    seen = colmap.make_camera(camera.model.name, found.params, (camera.width, camera.height))
    kept = {}
    for name in sorted(set(matches) & set(tracks.names)):
        rows = matches[name][np.argsort(matches[name][:, 0], kind="stable")]
        ids = tracks.points(name)[rows[:, 1].astype(np.int64)]
        rows, ids = rows[ids >= 0], ids[ids >= 0]
        projected = colmap.project(seen, found.cam_from_world, tracks.positions(ids))
        error = np.linalg.norm(projected - keypoints[rows[:, 0].astype(np.int64)], axis=1)
        if (error <= max_error_px).any():
            kept[name] = rows[error <= max_error_px]
    return kept


def most_alike(
    matches: Matches, count: int, keypoints: int, least: int = 1
) -> dict[str, NDArray[np.uint32]]:
    """``matches`` with at most ``count`` images for each of the query's ``keypoints``.

    Images with more matches come first: they see the place much as the query does, and patches
    that differ little are aligned best. An image that is left with fewer than ``least`` matches is
    passed over.
    """
    kept, have = {}, np.zeros(keypoints, np.int64)
    for name in sorted(matches, key=lambda name: (-len(matches[name]), name)):
        rows = matches[name][have[matches[name][:, 0].astype(np.int64)] < count]
        if len(rows) >= least:
            np.add.at(have, rows[:, 0].astype(np.int64), 1)
            kept[name] = rows
    return kept


class QueryRefiner:
    """Keypoints of queries against the photos of one map.

    photos: folder to which the names of the map's images are relative. read: file -> (H, W, 3)
    uint8 pixels.
    """

    def __init__(
        self,
        config: RefineQueryConfig,
        tracks: PointMap,
        photos: Path,
        *,
        device: str,
        read: Callable[[Path], ImageArray] = read_image,
    ) -> None:
        self.config = config
        self._read = read
        self._tracks = tracks
        self._device = resolve_device(device)
        limit = config.cache_mb << 20
        self._pyramids = Cache[Pyramid](lambda name: self._pyramid(photos / name), limit)

    def query(
        self,
        image: ImageArray | Path,
        keypoints: FloatArray,
        matches: Matches,
        camera: colmap.Camera,
        max_error_px: float,
    ) -> Callable[[PoseEstimate], FloatArray]:
        """For one query: its first pose -> its (N, 2) keypoints, moved where they agree with it.

        image: (H, W, 3) uint8 pixels, or the file. max_error_px: largest reprojection error of a
        match that is aligned. The result raises ImageError for a photo, also
        of the map, that cannot be read.
        """

        def moved(found: PoseEstimate) -> FloatArray:
            agreeing = agreeing_matches(
                found, keypoints, matches, self._tracks, camera, max_error_px
            )
            limits = self.config.images, len(keypoints), self.config.neighbors
            anchors = self._anchors(most_alike(agreeing, *limits))
            return refine_against(self._pyramid(image), keypoints, anchors, self.config).keypoints

        return moved

    def _anchors(self, matches: Matches) -> Iterator[Anchors]:
        for name, rows in sorted(matches.items()):
            positions = self._tracks.projected(name)
            yield Anchors(pyramid=self._pyramids[name], keypoints=positions, matches=rows)

    def _pyramid(self, image: ImageArray | Path) -> Pyramid:
        pixels = image if isinstance(image, np.ndarray) else self._read(image)
        return pyramid_of(pixels, self.config, self._device)
