"""Candidates: matches of queries with an RGB-D map -> candidate poses, best by inliers first.

A way to candidate poses is Direct PE (all features of the map at once), Sparse PE (retrieved
images, local features) or Dense PE (retrieved images, grids of descriptors).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from reconstruct import colmap
from reconstruct.config import NotIdentity
from reconstruct.datasets import cameras
from reconstruct.features.grid import GridConfig
from reconstruct.indoor.candidate_poses import (
    Candidate,
    Lifted,
    PoseRansacConfig,
    estimate,
    image_candidates,
    verify_matches,
)
from reconstruct.indoor.direct import ApproximateIndex, nearest_of_all
from reconstruct.indoor.homographies import HomographyConfig
from reconstruct.indoor.rgbd import RgbdPoints
from reconstruct.indoor.rgbd_map import RgbdMap
from reconstruct.matching import dense
from reconstruct.matching.config import MatchConfig, default_match
from reconstruct.matching.nearest import unit_vectors
from reconstruct.stages import Context
from reconstruct.stages.compact import CompactConfig
from reconstruct.stages.extract import Extract, LocalConfig
from reconstruct.stages.keyed import KeyedStage, Result, Worker
from reconstruct.stages.match import Match
from reconstruct.storage.cache import Cache
from reconstruct.storage.candidates import CandidatePoses, CandidateStore
from reconstruct.storage.matches import pair_key
from reconstruct.storage.pairs import ordered
from reconstruct.torch_device import resolve_device
from reconstruct.types import FloatArray
from reconstruct.workspace import fingerprint


class DirectConfig(PoseRansacConfig):
    """Direct PE: the nearest of all features of the map for each of the query, one RANSAC."""

    method: Literal["direct"]
    local: LocalConfig
    """The extractor, as in ``extract.local`` of other pipelines."""
    compact: CompactConfig = CompactConfig.model_validate({})
    """How descriptors are stored, as in ``extract.compact``."""
    min_score: float | None = Field(None, ge=-1, le=1)
    """Keep a match only if the cosine of its descriptors is at least this."""
    search: Literal["exact", "faiss"] = "exact"
    """faiss: an approximate index of that library, for maps of millions of features."""
    cache_mb: Annotated[int, NotIdentity] = Field(2048, ge=1)
    """Memory for descriptors of the map between queries (exact search)."""


class _MatchedConfig(PoseRansacConfig):
    homographies: HomographyConfig | None = HomographyConfig.model_validate({})
    """Verification of pairs by several planes; null: none."""
    images: int = Field(10, ge=1)
    """How many images, those with most verified matches, are tried; so many candidates remain."""
    pooled: bool = False
    """One pose for each place, from the matches with all of its images together."""


class SparseConfig(_MatchedConfig):
    """Sparse PE: local features matched with those of retrieved images."""

    method: Literal["sparse"]
    local: LocalConfig
    """The extractor, as in ``extract.local`` of other pipelines."""
    compact: CompactConfig = CompactConfig.model_validate({})
    """How descriptors are stored, as in ``extract.compact``."""
    match: MatchConfig = default_match()


class DenseCandidatesConfig(_MatchedConfig):
    """Dense PE: grids of descriptors matched coarse to fine with those of retrieved images."""

    method: Literal["dense"]
    local: GridConfig = GridConfig()
    """The grid."""
    compact: CompactConfig = CompactConfig.model_validate({"encoding": "float16"})
    """How descriptors are stored; a grid has many, so dim: 128 and uint8 pay for large maps."""
    match: MatchConfig = dense.DenseMatcherConfig(method="dense")


PoseConfig = Annotated[
    DirectConfig | SparseConfig | DenseCandidatesConfig, Field(discriminator="method")
]


class Candidates(KeyedStage):
    """The stage, for one way to candidate poses. match: None for Direct PE."""

    name = "candidates"
    unit = "queries"
    shard = (4, 4)  # a candidate may take a minute
    keeps_unwanted = False

    def __init__(
        self,
        context: Context,
        config: DirectConfig | SparseConfig | DenseCandidatesConfig,
        extract: Extract,
        match: Match | None,
        scans: RgbdMap,
        camera_config: cameras.CamerasConfig,
    ) -> None:
        self.candidates = CandidateStore(context.workspace.root / "candidates")
        super().__init__(context, self.candidates, [extract if match is None else match])
        self.config = config
        self.extract = extract
        self.match = match
        self.scans = scans
        self.camera_config = camera_config

    def _compared(self) -> dict[str, list[str]] | None:
        """Query -> the images of the map that it is compared with, both sorted; None if unknown."""
        queries = self.context.dataset.query_names
        compared: dict[str, list[str]] = {n: [] for n in self.extract.names() if n in queries}
        if self.match is None:
            known = set(self.scans.images.names)
            mapped = [name for name in self.extract.to_map() if name in known]
            return dict.fromkeys(compared, mapped)
        pairs = self.match.pair.pairs()
        if pairs is None:
            return None
        for first, second in pairs:
            query, other = (first, second) if first in queries else (second, first)
            compared[query].append(other)
        return {name: sorted(others) for name, others in compared.items()}

    def find_fingerprints(self) -> dict[str, str] | None:
        """Query -> fingerprint over the settings, its camera, its matches, and the scans seen."""
        compared = self._compared()
        if compared is None:
            return None
        features, dataset = self.extract.known_fingerprints(), self.context.dataset
        matches = None if self.match is None else self.match.known_fingerprints()
        # Extractor and matcher are in the fingerprints of features and matches.
        settings = {
            key: value
            for key, value in self.config.identity().items()
            if key not in ("local", "compact", "match")
        }
        common = [settings, self.context.seed, cameras.identity(self.camera_config, dataset)]
        given = {query.name: query.intrinsics for query in dataset.queries}
        whole_map: str | None = None
        found = {}
        for name, others in compared.items():
            known = given[name]
            camera = known and [known.model, known.size, known.params]
            if matches is not None:
                pairs = [ordered(name, other) for other in others]
                matched = [[*pair, matches[pair_key(pair)]] for pair in pairs]
                seen = fingerprint("seen", matched, self.scans.identity(others))
            else:  # the same for all queries
                described = [[other, features[other]] for other in others]
                if whole_map is None:
                    whole_map = fingerprint("map", described, self.scans.identity(others))
                seen = whole_map
            found[name] = fingerprint("candidates", common, name, camera, features[name], seen)
        return found

    def figures(self, made: int) -> dict[str, Any]:
        """How many queries have candidates."""
        return {"queries": len(self.known_fingerprints()), "estimated_now": made}

    def worker(self, fingerprints: Mapping[str, str]) -> Worker:
        """Estimates candidate poses."""
        return lambda keys: self._results(keys, fingerprints)

    def _results(self, keys: Sequence[str], fingerprints: Mapping[str, str]) -> Iterator[Result]:
        points, _ = self.scans.points(self.extract)
        known = self.query_cameras(keys)
        search = _Search(self, points) if isinstance(self.config, DirectConfig) else None
        compared = self._compared() or {}
        for name in keys:
            started = time.perf_counter()
            if search is not None:
                candidates, most = self._direct(name, known[name], search)
            else:
                candidates, most = self._matched(name, compared[name], known[name], points)
            stored = _stored(candidates, most, time.perf_counter() - started)
            yield Result(name, (CandidateStore.record(name, fingerprints[name], stored),))

    def query_cameras(self, names: Sequence[str]) -> dict[str, colmap.Camera]:
        """The cameras of queries."""
        sizes = self.extract.features.image_sizes(names)
        assigned = cameras.assign(self.camera_config, self.context.dataset, sizes)
        return {name: assigned.cameras[assigned.camera_ids[name]] for name in names}

    def _direct(
        self, name: str, camera: colmap.Camera, search: _Search
    ) -> tuple[list[Candidate], int]:
        positions = self.keypoints(name)
        lifted = search(name)
        places = self.scans.places
        found, most = estimate(positions, lifted, camera, places, self.config, self.context.seed)
        return ([] if found is None else [found]), most

    def _matched(
        self, name: str, others: Sequence[str], camera: colmap.Camera, points: RgbdPoints
    ) -> tuple[list[Candidate], int]:
        assert self.match is not None
        assert not isinstance(self.config, DirectConfig)
        seed, positions = self.context.seed, self.keypoints(name)
        matches = verify_matches(
            positions,
            {other: (self.keypoints(other), self._edge_px(other)) for other in others},
            {other: self.match.matches.load_from(name, other) for other in others},
            self.config.homographies,
            seed,
        )
        return image_candidates(
            positions,
            matches,
            points,
            camera,
            self.scans.places,
            self.config,
            count=self.config.images,
            pooled=self.config.pooled,
            seed=seed,
        )

    def keypoints(self, name: str) -> FloatArray:
        """(N, 2) COLMAP pixels."""
        return self.extract.features.keypoints(name)

    def _edge_px(self, name: str) -> int:
        return max(self.extract.features.image_size(name))


class _Search:
    """Direct PE's search: the nearest feature with a 3D point for each feature of a query."""

    def __init__(self, stage: Candidates, points: RgbdPoints) -> None:
        assert isinstance(stage.config, DirectConfig)
        self.stage, self.points, self.config = stage, points, stage.config
        self.device = resolve_device(stage.context.device)
        self.cache = Cache(self._descriptors, stage.config.cache_mb << 20)
        self.index: ApproximateIndex | None = None
        if stage.config.search == "faiss":
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
        stored = self.stage.extract.features.read(name, only="descriptors")["descriptors"]
        return unit_vectors(stored, self.device)

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
