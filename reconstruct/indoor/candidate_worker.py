"""From the matches of queries with an RGB-D map to candidate poses, in any process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from reconstruct import colmap
from reconstruct.indoor.candidate_poses import (
    Candidate,
    Lifted,
    estimate,
    image_candidates,
    verify_matches,
)
from reconstruct.indoor.direct import ApproximateIndex, nearest_of_all
from reconstruct.indoor.rgbd import RgbdPoints
from reconstruct.indoor.scans import ScanLoader
from reconstruct.indoor.ways import DenseCandidatesConfig, DirectConfig, SparseConfig
from reconstruct.lazy import lazily
from reconstruct.matching.nearest import unit_vectors
from reconstruct.stages.keyed import Result, Wanted
from reconstruct.storage.cache import Cache
from reconstruct.storage.candidates import CandidatePoses, CandidateStore
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.matches import MatchStore
from reconstruct.torch_device import resolve_device

if TYPE_CHECKING:
    import torch
else:
    torch = lazily("torch")


@dataclass(frozen=True, kw_only=True, eq=False)
class CandidateWorker:
    """Queries -> candidate poses.

    Args:
        config: The way to candidate poses.
        load_map: Loads the map.
        features: Features of queries and of the map's images.
        matches: Matches between them; None for Direct PE.
        compared: Query -> the images that it is compared with.
        cameras: The queries' cameras by name.
        device: Where descriptors are compared.
        seed: Seed of RANSAC.
    """

    config: DirectConfig | SparseConfig | DenseCandidatesConfig
    load_map: ScanLoader
    features: FeatureStore
    matches: MatchStore | None
    compared: Mapping[str, Sequence[str]]
    cameras: Mapping[str, colmap.Camera]
    device: str
    seed: int

    def __getstate__(self) -> dict[str, Any]:
        loaded = ("points", "search")
        return {name: value for name, value in vars(self).items() if name not in loaded}

    @cached_property
    def points(self) -> RgbdPoints:
        """The map, loaded when the first query asks for it."""
        return self.load_map()[0]

    @cached_property
    def search(self) -> _Search:
        """Direct PE's search."""
        assert isinstance(self.config, DirectConfig)
        return _Search(self.config, self.points, self.features, self.device)

    def __call__(self, wanted: Sequence[Wanted]) -> Iterator[Result]:
        """Results for queries."""
        for name, value, _ in wanted:
            started = time.perf_counter()
            candidates, most = self._candidates(name)
            stored = _stored(candidates, most, time.perf_counter() - started)
            record = CandidateStore.record(name, value, stored)
            yield Result(name, (record,), notes=dict(self.load_map.unreadable))

    def _candidates(self, name: str) -> tuple[list[Candidate], int]:
        """The candidates of a query, and the largest number of matches that a pose was estimated
        from."""
        positions, camera = self.features.keypoints(name), self.cameras[name]
        places = self.load_map.scans.places
        if isinstance(self.config, DirectConfig):
            lifted = self.search(name)
            found, most = estimate(positions, lifted, camera, places, self.config, self.seed)
            return ([] if found is None else [found]), most
        assert self.matches is not None
        others = self.compared[name]
        matches = verify_matches(
            positions,
            {other: (self.features.keypoints(other), self._edge_px(other)) for other in others},
            {other: self.matches.load_from(name, other) for other in others},
            self.config.homographies,
            self.seed,
        )
        return image_candidates(
            positions,
            matches,
            self.points,
            camera,
            places,
            self.config,
            count=self.config.images,
            pooled=self.config.pooled,
            seed=self.seed,
        )

    def _edge_px(self, name: str) -> int:
        return max(self.features.image_size(name))


class _Search:
    """Direct PE's search: the nearest feature with a 3D point for each feature of a query."""

    def __init__(
        self, config: DirectConfig, points: RgbdPoints, features: FeatureStore, device: str
    ) -> None:
        self.config, self.points, self.features = config, points, features
        self.device = resolve_device(device)
        self.cache = Cache(self._descriptors, config.cache_mb << 20)
        self.index: ApproximateIndex | None = None
        if config.search == "faiss":
            self.index = ApproximateIndex()
            for name in points.names:
                self.index.add(self._descriptors(name).cpu().numpy(), self._ids(name))

    def __call__(self, query: str) -> Lifted:
        asked = self._load(query)
        if self.index is not None:
            ids, cosine = self.index.search(asked.cpu().numpy())
        else:
            parts = ((self.cache[name], self._ids(name)) for name in self.points.names)
            ids, cosine = nearest_of_all(asked, parts)
        good = ids >= 0
        if self.config.min_score is not None:
            good &= cosine >= self.config.min_score
        return Lifted(
            keypoints=np.flatnonzero(good),
            xyz=self.points.positions(ids[good]),
            source=self.points.image_numbers(ids[good]),
            images=self.points.names,
        )

    def _load(self, name: str) -> torch.Tensor:
        return unit_vectors(self.features.load(name, ["descriptors"]).descriptors, self.device)

    def _descriptors(self, name: str) -> torch.Tensor:
        return self._load(name)[torch.from_numpy(self.points.points(name) >= 0)]

    def _ids(self, name: str) -> NDArray[np.int64]:
        ids = self.points.points(name)
        return ids[ids >= 0]


def _stored(found: Sequence[Candidate], most: int, seconds: float) -> CandidatePoses:
    columns: dict[str, Any] = {
        "inliers": tuple(c.inliers for c in found),
        "matches": tuple(c.matches for c in found),
        "places": tuple(c.place for c in found),
        "images": tuple(c.image for c in found),
    }
    poses = np.array([c.cam_from_world for c in found]).reshape(-1, 3, 4)
    return CandidatePoses(poses=poses, most_matches=most, seconds=seconds, **columns)
