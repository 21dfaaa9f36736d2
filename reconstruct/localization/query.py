"""From a matched query to its pose in a finished map: the flow that the stage and the Python API
share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reconstruct import colmap
from reconstruct.images import read_image
from reconstruct.localization.pose import LocalizeConfig, localize_matches
from reconstruct.localization.refine_query import QueryRefiner
from reconstruct.stages.verify import VerifyConfig
from reconstruct.types import FloatArray, ImageArray, PointMap, PoseEstimate


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MatchedQuery:
    """A photo with its keypoints, matched with images of the map.

    Args:
        name: Its name.
        image: Its file, or (H, W, 3) uint8 RGB pixels.
        keypoints: (N, 2) float32 COLMAP pixels.
        camera: Its intrinsics.
        camera_known: Whether these were given, and not guessed.
        matches: Image of the map -> (M, 2) keypoint indices, the query's first.
        map_keypoints: Image of the map -> its (N, 2) keypoints, for those in ``matches``.
        input_scale: Width, in pixels of the photo, of a pixel of the extractor's input, which
            limits in pixels are in.
    """

    name: str
    image: ImageArray | Path
    keypoints: FloatArray
    camera: colmap.Camera
    camera_known: bool
    matches: Mapping[str, NDArray[np.uint32]]
    map_keypoints: Mapping[str, FloatArray]
    input_scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PreparedQuery:
    """What the pose of a query is estimated from.

    Attributes:
        query: The photo.
        config: The settings, with ``max_error_px`` in pixels of the photo.
        matches: Image of the map -> those of its matches that count.
        refine: A first pose -> the query's keypoints, moved; None: they stay.
    """

    query: MatchedQuery
    config: LocalizeConfig
    matches: Mapping[str, NDArray[np.uint32]]
    refine: Callable[[PoseEstimate], FloatArray] | None


class QueryLocalizer:
    """Finds where queries were taken, in one map.

    Args:
        config: Section ``localize``.
        verify: Section ``verify``, whose limits ``config.verify_pairs`` uses.
        tracks: The map's points.
        cameras: The cameras of the map's images by name.
        photos: Folder of the map's photos, which only ``config.refine`` reads.
        device: Where patches are compared.
        seed: Seed of RANSAC.
        read: Photo's file -> (H, W, 3) uint8 pixels.
    """

    def __init__(
        self,
        config: LocalizeConfig,
        verify: VerifyConfig,
        tracks: PointMap,
        cameras: Mapping[str, colmap.Camera],
        *,
        photos: Path | None,
        device: str,
        seed: int,
        read: Callable[[Path], ImageArray] = read_image,
    ) -> None:
        self.config = config
        self.verify = verify
        self.tracks = tracks
        self.cameras = cameras
        self.seed = seed
        self._refiner: QueryRefiner | None = None
        if config.refine is not None and photos is not None:
            self._refiner = QueryRefiner(config.refine, tracks, photos, device=device, read=read)

    def __call__(self, query: MatchedQuery) -> PoseEstimate:
        """The pose of a query in the map's frame, or why there is none."""
        prepared = self.prepare(query)
        free = self.config.refine_focal
        return localize_matches(
            query.name,
            query.keypoints,
            prepared.matches,
            self.tracks,
            query.camera,
            prepared.config,
            refine_focal=not query.camera_known if free is None else free,
            seed=self.seed,
            refine=prepared.refine,
        )

    def prepare(self, query: MatchedQuery) -> PreparedQuery:
        """What the pose of a query is estimated from."""
        config = self.config
        if config.pixels == "input":
            limit = query.input_scale * config.max_error_px
            config = config.model_copy(update={"max_error_px": limit})
        known = set(self.tracks.names)
        matches = {
            name: self._verified(query, name, _in_order(query.matches[name]))
            for name in sorted(query.matches)
            if name in known
        }
        refine = None
        if self._refiner is not None:
            refine = self._refiner.query(
                query.image, query.keypoints, matches, query.camera, config.max_error_px
            )
        return PreparedQuery(query=query, config=config, matches=matches, refine=refine)

    def _verified(
        self, query: MatchedQuery, name: str, matches: NDArray[np.uint32]
    ) -> NDArray[np.uint32]:
        if not self.config.verify_pairs:
            return matches
        return colmap.estimate_two_view_geometry(
            query.camera,
            query.keypoints,
            self.cameras[name],
            query.map_keypoints[name],
            matches,
            self.verify,
            seed=self.seed,
        ).inliers


def _in_order(matches: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Matches sorted by the query's keypoint, so that the order in which they were found has no
    influence."""
    order = np.lexsort((matches[:, 1], matches[:, 0]))
    return np.ascontiguousarray(matches[order])
