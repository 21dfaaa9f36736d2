"""What a finished run's output folder holds, read when it is first asked for."""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct import colmap
from reconstruct.datasets import Dataset
from reconstruct.errors import ArtifactError, ImageError
from reconstruct.geometry import Float64
from reconstruct.images import image_size
from reconstruct.matching.disambiguation import Disambiguation
from reconstruct.report.content import Picture
from reconstruct.report.pictures import thumbnail
from reconstruct.report.statistics import errors_px
from reconstruct.stages.disambiguate import read_disambiguation
from reconstruct.stages.georegister import read_gps
from reconstruct.stages.map_uncertainty import relative_uncertainty
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.geometries import GeometryStore
from reconstruct.storage.matches import MatchStore, key_pair
from reconstruct.types import ImagePair
from reconstruct.workspace import Workspace

KEYPOINTS_KEPT = 256
"""Images whose keypoints stay in memory."""


class OutputFolder:
    """An output folder and the photos that it was made of.

    What is missing or cannot be read is empty: a report tells what there is.
    """

    def __init__(self, workspace: Workspace, dataset: Dataset) -> None:
        self.workspace = workspace
        self.dataset = dataset
        self._features = FeatureStore(workspace.features)
        self._matches = MatchStore(workspace.matches)
        self._geometries = GeometryStore(workspace.geometries)
        self.keypoints = lru_cache(KEYPOINTS_KEPT)(self._keypoints)
        """Image -> (N, 2) keypoints as the extractor found them, or None."""

    @cached_property
    def models(self) -> list[colmap.ModelArrays]:
        """The models, the largest first."""
        return [colmap.model_arrays(colmap.read_model(p)) for p in self.workspace.models()]

    def uncertainty(self, number: int) -> dict[str, tuple[float, float]]:
        """Image -> expected errors of its pose in a model: `relative_uncertainty`."""
        model = self.models[number]
        centers = dict(zip(model.names, model.centers, strict=True))
        return relative_uncertainty(self.workspace.models()[number], centers)

    @cached_property
    def gps(self) -> dict[str, Any] | None:
        """What gps.json says, if the models were aligned with GPS."""
        return read_gps(self.workspace)

    @cached_property
    def errors_px(self) -> Float64:
        """Reprojection errors of the largest model's observations."""
        return errors_px(self.models[0])

    @cached_property
    def verified(self) -> dict[ImagePair, int]:
        """Pair -> verified matches."""
        path = self.workspace.database
        return colmap.verified_counts(path) if path.is_file() else {}

    @cached_property
    def prior_cameras(self) -> dict[str, colmap.Camera]:
        """Image -> its camera before mapping."""
        path = self.workspace.database
        return colmap.database_cameras(path) if path.is_file() else {}

    @cached_property
    def pairs(self) -> list[ImagePair]:
        """Sorted pairs that were matched."""
        return sorted(key_pair(key) for key in self._matches.fingerprints())

    @cached_property
    def _mapped_counts(self) -> dict[str, int]:
        path = self.workspace.database
        return colmap.database_keypoint_counts(path) if path.is_file() else {}

    def matches(self, first: str, second: str) -> NDArray[np.uint32]:
        """(M, 2) matches of a pair before verification, those of ``first`` in the first column."""
        try:
            return self._matches.load_from(first, second)
        except ArtifactError:
            return np.zeros((0, 2), np.uint32)

    def inliers(self, pair: ImagePair) -> NDArray[np.uint32]:
        """(M, 2) verified matches of a pair, also where it was removed later."""
        try:
            return self._geometries.inliers(pair)
        except ArtifactError:
            return np.zeros((0, 2), np.uint32)

    @cached_property
    def disambiguation(self) -> Disambiguation | None:
        """The places that look alike, where they were looked for."""
        try:
            return read_disambiguation(self.workspace)
        except ArtifactError:
            return None

    @cached_property
    def featured(self) -> list[str]:
        """Sorted images with features."""
        return sorted(self._features.fingerprints())

    @cached_property
    def keypoint_counts(self) -> dict[str, int]:
        """Image -> how many keypoints were found; reads none of them."""
        try:
            return self._features.lengths("keypoints")
        except ArtifactError:
            return {}

    def _keypoints(self, name: str) -> NDArray[np.float32] | None:
        try:
            found = self._features.read(name, only="keypoints")["keypoints"]
        except ArtifactError:
            return None
        return np.asarray(found, np.float32)[:, :2]

    def keypoints_before(self, name: str) -> NDArray[np.float32] | None:
        """`keypoints`, where they are those of which the model was made: by their number."""
        found = self.keypoints(name)
        return found if found is not None and self._mapped_counts.get(name) == len(found) else None

    def size(self, name: str) -> tuple[int, int]:
        """(width, height) of a photo; of its features where the photo is gone."""
        try:
            return image_size(self.dataset.path(name))
        except ImageError:
            try:
                width, height = self._features.read(name, only="image_size")["image_size"][0]
            except ArtifactError:
                return (4, 3)
            return int(width), int(height)

    def picture(self, name: str, budget: int) -> Picture | None:
        """The photo at the size that ``budget`` bytes allow; None if it cannot be read."""
        data = thumbnail(self.dataset.path(name), budget)
        if data is None:
            return None
        width, height = self.size(name)
        return Picture(name=name, data=data, width=float(width), height=float(height))


def dataset_of(workspace: Workspace, config: Any, dataset: Dataset | None) -> Dataset:
    """The data set of a run; without it, the photos by name from the folder that is configured."""
    if dataset is not None:
        return dataset
    settings = config.get("dataset", {}) if isinstance(config, dict) else {}
    made = workspace.dataset / "images"  # rendered, converted, or the frames of a video
    root = made if made.is_dir() else Path(settings.get("images") or made)
    return Dataset(root=root, names=tuple(sorted(FeatureStore(workspace.features).fingerprints())))
