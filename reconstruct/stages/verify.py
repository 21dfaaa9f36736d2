"""Verify: features and matches -> a COLMAP database with robust two-view geometries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from reconstruct import colmap
from reconstruct.config import Section
from reconstruct.datasets import cameras
from reconstruct.errors import ConfigError, EstimationError
from reconstruct.stages import Context, Plan, need, plan_whole
from reconstruct.stages.extract import Extract
from reconstruct.stages.match import Match
from reconstruct.types import ImagePair
from reconstruct.workspace import atomic_path, fingerprint, tree_hash


class VerifyConfig(Section):
    """Section ``verify``."""

    max_error_px: float = Field(4.0, gt=0)
    """Largest (Sampson) error of an inlier, in pixels of the original image."""
    min_inliers: int = Field(15, ge=1)
    """Pairs with fewer inliers are left out."""
    known_poses: bool = False
    """Keep the matches that agree with the poses from which the map is triangulated, instead of
    estimating a geometry; ``max_error_px`` is then the distance from epipolar lines."""


class Verify:
    """The stage. ``database`` is where the verified database stands."""

    name = "verify"

    def __init__(
        self,
        context: Context,
        config: VerifyConfig,
        camera_config: cameras.CamerasConfig,
        extract: Extract,
        match: Match,
        database: Path,
    ) -> None:
        self.context = context
        self.config = config
        self.camera_config = camera_config
        self.extract = extract
        self.match = match
        self.database = database
        cameras.check(camera_config, context.dataset)
        self.poses = context.dataset.poses if config.known_poses else None
        if config.known_poses and self.poses is None:
            raise ConfigError("verify.known_poses: needs map.reference, or a data set with poses")

    def fingerprint(self) -> str | None:
        """Over settings, cameras, and all matches; None while stages before are incomplete."""
        if not self.match.complete():
            return None
        prints = self.extract.wanted()
        features = [[name, prints[name]] for name in self.extract.to_map()]
        matches = [[*pair, v] for pair, v in self.match.wanted(self.pairs()).items()]
        given = cameras.identity(self.camera_config, self.context.dataset)
        seed = self.context.seed
        settings = [self.config.identity(), self.poses and tree_hash(self.poses)]
        return fingerprint("database", settings, given, seed, features, matches)

    def plan(self) -> Plan:
        """Whether the database stands for the present matches."""
        return plan_whole(self.context, self.database, self.fingerprint(), self.database.name)

    def discard(self) -> None:
        """Forget the database."""
        self.context.workspace.set_stamp(self.database, None)

    def pairs(self) -> list[ImagePair]:
        """The committed pairs of images of the map: queries are no part of it."""
        queries = self.context.dataset.query_names
        return [pair for pair in self.match.pair.pairs() if not queries & set(pair)]

    def assign_cameras(self) -> colmap.CameraAssignment:
        """Cameras of the images with features, and which of them are known."""
        names = self.extract.to_map()
        sizes = {name: self.image_size(name) for name in names}
        return cameras.assign(self.camera_config, self.context.dataset, sizes)

    def run(self) -> None:
        """Write the database. Raises EstimationError if no pair passes."""
        need(self.match.complete(), self.name, "match")
        if self.plan().state != "done":
            self._write(self.fingerprint())
        inliers = colmap.verified_matches(self.database)
        pairs = len(self.pairs())
        if not inliers:
            raise EstimationError(
                f"none of {pairs} pairs has {self.config.min_inliers} matches that agree with one "
                "two-view geometry: the photos do not overlap enough, or are too poor in texture"
            )
        self.context.summary.figures[self.name] = {
            "verified_pairs": len(inliers),
            "of_pairs": pairs,
            "mean_inliers": round(float(np.mean([len(m) for m in inliers.values()])), 1),
        }

    def _write(self, value: str | None) -> None:
        workspace = self.context.workspace
        workspace.set_stamp(self.database, None)
        pairs = self.pairs()
        with atomic_path(self.database) as temporary:
            with self.context.reporter.task("import", len(pairs), "pairs") as advance:
                colmap.write_database(
                    temporary,
                    self.assign_cameras(),
                    self._keypoints,
                    self._matches(pairs, advance),
                )
            with self.context.reporter.task(self.name, 1, "database") as advance:
                self.verify_database(temporary)
                advance()
        workspace.set_stamp(self.database, value)

    def verify_database(self, database: Path) -> None:
        """Robust two-view geometry of every matched pair in ``database``."""
        limits: dict[str, Any] = {
            "max_error_px": self.config.max_error_px,
            "min_inliers": self.config.min_inliers,
        }
        if self.poses is None:
            colmap.verify_database(database, seed=self.context.seed, **limits)
        else:
            poses = colmap.model_poses(colmap.read_model(self.poses))
            colmap.verify_with_poses(database, poses, **limits)

    def _keypoints(self, name: str) -> NDArray[np.float32]:
        keypoints: NDArray[np.float32] = self.extract.store.read(name, only="keypoints")[
            "keypoints"
        ]
        return keypoints

    def image_size(self, name: str) -> tuple[int, int]:
        """(width, height) of an image with features."""
        width, height = self.extract.store.read(name, only="image_size")["image_size"][0].tolist()
        return width, height

    def _matches(self, pairs: Any, advance: Any) -> Any:
        for pair in pairs:
            advance()
            yield pair, self.match.store.load(pair)
