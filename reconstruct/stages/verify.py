"""Verify: features and matches -> geometries/, a robust two-view geometry for each pair.

The geometry of a pair depends on its matches, its cameras and the settings alone (RANSAC is seeded
by the pair's names), so one more photo costs its own pairs.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from reconstruct import colmap
from reconstruct.datasets import cameras
from reconstruct.errors import ArtifactError, ConfigError, EstimationError, UsageError
from reconstruct.fingerprints import fingerprinter, json_text, tree_hash
from reconstruct.parallel import side_by_side
from reconstruct.stages import Context
from reconstruct.stages.extract import Extract
from reconstruct.stages.keyed import KeyedStage, Result, Wanted, Worker
from reconstruct.stages.map_cameras import ImageCameras, MapCameras
from reconstruct.stages.match import Match
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.geometries import GeometryStore
from reconstruct.storage.matches import MatchStore, key_pair
from reconstruct.types import ImagePair, TwoViewGeometry

logger = logging.getLogger(__name__)


class VerifyConfig(colmap.TwoViewOptions):
    """Section ``verify``."""

    pixels: Literal["input", "photo"] = "input"
    """What a pixel is in ``max_error_px``: a pixel of the photo as the extractor saw it, shrunk to
    its ``max_edge`` (so that photos of any resolution are verified alike), or of the photo as it is
    stored."""
    max_error_refined_px: float | None = Field(None, gt=0)
    """After `refine`: largest error of matches of which both keypoints were refined, in the same
    pixels; the others keep to ``max_error_px``. null: one limit for all."""
    known_poses: bool = False
    """Keep the matches that agree with the poses from which the map is triangulated, instead of
    estimating a geometry; ``max_error_px`` is then the distance from epipolar lines."""


class Verified(Protocol):
    """What the database is written from: stage `Verify`, or `VerifyRefined` or `Disambiguate` after
    it."""

    name: str

    @property
    def refined(self) -> bool:
        """Whether keypoints were refined."""

    def current(self) -> bool:
        """Whether the geometries of all pairs are there."""

    def fingerprints(self) -> Mapping[str, str] | None:
        """Pair -> fingerprint of its geometry; None while unknown."""

    def pairs(self) -> list[ImagePair]:
        """Sorted pairs of which at least one match passed."""

    def geometry(self, pair: ImagePair) -> TwoViewGeometry:
        """The geometry of a pair."""

    def matches(self, pair: ImagePair) -> NDArray[np.uint32]:
        """(M, 2) matches that were verified."""

    def keypoints(self, name: str) -> NDArray[np.float32]:
        """(N, 2) keypoints of an image that its geometries were estimated from."""

    def pixel_scale(self, name: str) -> float:
        """Width, in pixels of the photo, of a pixel of the picture in which its keypoints were
        found: the extractor's input, or the picture on which they were refined."""


class Verify(KeyedStage):
    """The stage."""

    name = "verify"
    unit = "pairs"
    shard = (4, 256)
    refined = False

    def __init__(
        self,
        context: Context,
        config: VerifyConfig,
        camera_config: cameras.CamerasConfig,
        extract: Extract,
        match: Match,
    ) -> None:
        self.geometries = GeometryStore(context.workspace.geometries)
        super().__init__(context, self.geometries, [match])
        self.config = config
        self.extract = extract
        self.match = match
        self.poses = context.dataset.poses if config.known_poses else None
        if config.known_poses and self.poses is None:
            raise ConfigError("verify.known_poses: needs map.reference, or a data set with poses")
        self._camera_config = camera_config
        cameras.check(camera_config, context.dataset)
        self._cameras: MapCameras | None = None

    @property
    def cameras(self) -> MapCameras:
        """Cameras of the images of the map."""
        if self._cameras is None or not self.extract.settled:
            self._cameras = MapCameras(self.context, self._camera_config, self.extract)
        return self._cameras

    def renew(self) -> None:
        """Forget the cameras too: those that are guessed depend on the photos."""
        super().renew()
        self._cameras = None

    def settings(self) -> list[Any]:
        """JSON-able: what decides a geometry beside the matches and the cameras."""
        return [self.config.identity(), self.poses and tree_hash(self.poses), self.context.seed]

    def find_fingerprints(self) -> dict[str, str] | None:
        """Pair -> fingerprint over the settings, its matches and its two cameras."""
        matches = self.match.fingerprints()
        if matches is None:
            return None
        of = fingerprinter("geometry", self.settings())
        texts = {name: json_text(value) for name, value in self.cameras.identities.items()}
        unknown = json_text(None)
        queries = self.context.dataset.query_names
        found = {}
        for key, value in matches.items():
            a, b = key_pair(key)
            if a not in queries and b not in queries:  # queries are no part of the map
                pair_cameras = texts.get(a, unknown), texts.get(b, unknown)
                found[key] = of(json_text(value), *pair_cameras)
        return found

    def count_wanted(self) -> int | None:
        """How many pairs, where no photo is a query."""
        return None if self.context.dataset.query_names else self.match.count_wanted()

    def order(self, keys: Sequence[str]) -> list[str]:
        """The order of matching, in which keypoints are read seldom."""
        return self.match.order(keys)

    def worker(self) -> Worker:
        """Estimates the geometry of pairs. Raises UsageError where no camera allows one."""
        if self.poses is None:
            self._check_focal_lengths()
        inputs = StoredInputs(self.extract.features, self.match.matches)
        return VerifyWorker(estimate=self.estimator(), inputs=inputs)

    def _check_focal_lengths(self) -> None:
        given, ids = self.cameras.assignment.cameras, self.cameras.assignment.camera_ids
        unknown = sorted(name for name in ids if colmap.lacks_focal_length(given[ids[name]]))
        if unknown and len(unknown) == len(ids):
            raise UsageError(
                f"dataset.camera_model: {given[ids[unknown[0]]].model.name}, but the photos do not "
                "tell their focal length, which COLMAP needs of fisheye lenses; give it as "
                "dataset.cameras, e.g. {model: OPENCV_FISHEYE, params: [fx, fy, cx, cy, k1, k2, "
                "k3, k4]}"
            )
        if unknown:
            logger.warning(
                "verify: %d photos of fisheye lenses do not tell their focal length, e.g. %s: "
                "their pairs have no geometry, see dataset.cameras",
                *(len(unknown), unknown[0]),
            )

    def estimator(self) -> Estimator:
        """What finds the geometry of a pair from its keypoints and matches."""
        if self.poses is not None:
            poses = colmap.model_poses(colmap.read_model(self.poses))
            return PosesEstimator(self.cameras.by_name, poses, self.config)
        return RobustEstimator(self.cameras.by_name, self.context.seed, self.config)

    def keypoints(self, name: str) -> NDArray[np.float32]:
        """(N, 2) keypoints of an image."""
        return self.extract.features.keypoints(name)

    def pixel_scale(self, name: str) -> float:
        """See `Verified`."""
        return self.cameras.input_scale(name)

    def matches(self, pair: ImagePair) -> NDArray[np.uint32]:
        """(M, 2) matches of a pair."""
        return self.match.matches.load(pair)

    def geometry(self, pair: ImagePair) -> TwoViewGeometry:
        """The geometry of a pair."""
        return self.geometries.load(pair)

    def pairs(self) -> list[ImagePair]:
        """Sorted pairs of which at least one match passed."""
        return self.geometries.passed(self.known_fingerprints())

    def figures(self, made: int) -> dict[str, Any]:
        """How many pairs passed. Raises EstimationError if none did."""
        return verification_figures(self.geometries, self.known_fingerprints(), made, self.config)


def verification_figures(
    geometries: GeometryStore, wanted: Mapping[str, str], made: int, config: VerifyConfig
) -> dict[str, Any]:
    """How many of the wanted pairs passed, and their mean inliers.

    Raises:
        EstimationError: No pair passed.
    """
    lengths = geometries.lengths("inliers")
    counts = [lengths[key] for key in wanted if lengths[key]]
    if not counts:
        raise EstimationError(
            f"none of {len(wanted)} pairs has {config.min_inliers} matches that agree with one "
            "two-view geometry: the photos do not overlap enough, or are too poor in texture"
        )
    return {
        "verified_pairs": len(counts),
        "of_pairs": len(wanted),
        "verified_now": made,
        "mean_inliers": round(float(np.mean(counts)), 1),
    }


Inputs = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint32]]
"""(N0, 2) and (N1, 2) keypoints of a pair, and its (M, 2) matches."""
Estimator = Callable[[ImagePair, Inputs], TwoViewGeometry]
"""The geometry of a pair."""


@dataclass(frozen=True, slots=True)
class StoredInputs:
    """Reads keypoints and matches of pairs as they were found."""

    features: FeatureStore
    matches: MatchStore

    def __call__(self, pair: ImagePair) -> Inputs:
        """The keypoints and the matches of a pair."""
        first, second = (self.features.keypoints(name) for name in pair)
        return first, second, self.matches.load(pair)


@dataclass(frozen=True, slots=True, eq=False)
class RobustEstimator:
    """Two-view geometry by LO-RANSAC, seeded by the names of the pair."""

    cameras: ImageCameras
    seed: int
    config: VerifyConfig

    def __call__(self, pair: ImagePair, inputs: Inputs) -> TwoViewGeometry:
        """The geometry of ``pair``."""
        return self.estimate(pair, inputs, self.config.max_error_px)

    def estimate(self, pair: ImagePair, inputs: Inputs, max_error_px: float) -> TwoViewGeometry:
        """The geometry of ``pair`` with another limit than that of the settings."""
        first, second, matches = inputs
        scale = 1.0
        if self.config.pixels == "input":
            scale = math.sqrt(math.prod(self.cameras.input_scale(name) for name in pair))
        options = self.config.model_copy(update={"max_error_px": scale * max_error_px})
        return colmap.estimate_two_view_geometry(
            self.cameras[pair[0]],
            first,
            self.cameras[pair[1]],
            second,
            matches,
            options,
            seed=colmap.pair_seed(self.seed, pair),
        )


@dataclass(frozen=True, slots=True, eq=False)
class PosesEstimator:
    """The matches that agree with known poses, (3, 4) cam_from_world by name."""

    cameras: ImageCameras
    poses: Mapping[str, NDArray[np.float64]]
    config: VerifyConfig

    def __call__(self, pair: ImagePair, inputs: Inputs) -> TwoViewGeometry:
        """The geometry of ``pair``; one without inliers where a pose is not known."""
        if not all(name in self.poses for name in pair):
            return TwoViewGeometry.empty()
        first, second, matches = inputs
        return colmap.geometry_from_poses(
            self.cameras[pair[0]],
            first,
            self.cameras[pair[1]],
            second,
            matches,
            (self.poses[pair[0]], self.poses[pair[1]]),
            max_error_px=self.config.max_error_px,
            min_inliers=self.config.min_inliers,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VerifyWorker:
    """Pairs -> two-view geometries, several pairs at once."""

    estimate: Estimator
    inputs: Callable[[ImagePair], Inputs]

    def __call__(self, wanted: Sequence[Wanted]) -> Iterator[Result]:
        """Results for pairs."""
        pairs = (key_pair(item.key) for item in wanted)
        jobs = ((pair, _checked(pair, self.inputs(pair))) for pair in pairs)
        found = side_by_side(lambda job: self.estimate(*job), jobs)
        for (key, value, _), geometry in zip(wanted, found, strict=True):
            yield Result(key, (GeometryStore.record(key, value, geometry),))


def _checked(pair: ImagePair, inputs: Inputs) -> Inputs:
    """Raises ArtifactError for matches of keypoints that are not there: COLMAP would crash."""
    first, second, matches = inputs
    check_indices(pair, matches, (len(first), len(second)))
    return inputs


def check_indices(pair: ImagePair, matches: NDArray[np.uint32], keypoints: tuple[int, int]) -> None:
    """Raises ArtifactError for (M, 2) matches of keypoints that are not there."""
    if len(matches) and (matches.max(axis=0) >= keypoints).any():
        raise ArtifactError(
            f"matches of {pair} name keypoints beyond the {keypoints[0]} and {keypoints[1]} that "
            "there are; run again with --force match,verify"
        )
