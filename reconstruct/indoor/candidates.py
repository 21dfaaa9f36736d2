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
from reconstruct.stages import Context, Plan, make_parts, need, plan_parts
from reconstruct.stages.compact import CompactConfig
from reconstruct.stages.extract import Extract, LocalConfig
from reconstruct.stages.match import Match, MatchConfig, as_tensor
from reconstruct.storage.cache import Cache
from reconstruct.storage.candidates import CandidatePoses, CandidateStore
from reconstruct.storage.shards import Record
from reconstruct.torch_device import resolve_device
from reconstruct.types import FloatArray
from reconstruct.workspace import fingerprint

SHARD = 4
"""Queries a shard: a candidate may take a minute."""


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
    match: MatchConfig = MatchConfig.model_validate({})


class DenseConfig(_MatchedConfig):
    """Dense PE: grids of descriptors matched coarse to fine with those of retrieved images."""

    method: Literal["dense"]
    local: GridConfig = GridConfig()
    """The grid."""
    compact: CompactConfig = CompactConfig.model_validate({"encoding": "float16"})
    """How descriptors are stored; a grid has many, so dim: 128 and uint8 pay for large maps."""
    match: MatchConfig = MatchConfig.model_validate({"method": "dense"})


PoseConfig = Annotated[DirectConfig | SparseConfig | DenseConfig, Field(discriminator="method")]


class Candidates:
    """The stage, for one way to candidate poses. match: None for Direct PE."""

    name = "candidates"

    def __init__(
        self,
        context: Context,
        config: DirectConfig | SparseConfig | DenseConfig,
        extract: Extract,
        match: Match | None,
        scans: RgbdMap,
        camera_config: cameras.CamerasConfig,
    ) -> None:
        self.context = context
        self.config = config
        self.extract = extract
        self.match = match
        self.scans = scans
        self.camera_config = camera_config
        self.store = CandidateStore(context.workspace.root / "candidates")

    def ready(self) -> bool:
        """Whether the stages before are complete, but for photos that cannot be read."""
        return self.match.complete() if self.match is not None else bool(self.extract.available())

    def _compared(self) -> dict[str, list[str]]:
        """Query -> the images of the map that it is compared with, both sorted."""
        queries = self.context.dataset.query_names
        known = set(self.scans.images.names)
        found: dict[str, list[str]] = {n: [] for n in self.extract.available() if n in queries}
        if self.match is None:
            mapped = [name for name in self.extract.to_map() if name in known]
            return dict.fromkeys(found, mapped)
        for first, second in self.match.pair.pairs():
            query, other = (first, second) if first in queries else (second, first)
            found[query].append(other)
        return {name: sorted(others) for name, others in found.items()}

    def wanted(self) -> dict[str, str] | None:
        """Query -> fingerprint of its candidates; None while stages before are incomplete."""
        if not self.ready():
            return None
        prints, dataset = self.extract.wanted(), self.context.dataset
        # Extractor and matcher are in the prints of features and matches.
        settings = {
            key: value
            for key, value in self.config.identity().items()
            if key not in ("local", "compact", "match")
        }
        common = [settings, self.context.seed, cameras.identity(self.camera_config, dataset)]
        given = {query.name: query.intrinsics for query in dataset.queries}
        shared: str | None = None
        wanted = {}
        for name, others in self._compared().items():
            known = given[name]
            camera = known and [known.model, known.size, known.params]
            if self.match is not None:
                pairs = [(min(name, other), max(name, other)) for other in others]
                matches = [[*pair, value] for pair, value in self.match.wanted(pairs).items()]
                seen = fingerprint("seen", matches, self.scans.identity(others))
            else:  # the same for all queries: the whole map
                features = [[other, prints[other]] for other in others]
                shared = shared or fingerprint("map", features, self.scans.identity(others))
                seen = shared
            wanted[name] = fingerprint("candidates", common, name, camera, prints[name], seen)
        return wanted

    def plan(self) -> Plan:
        """How many queries lack candidates."""
        return plan_parts(self.wanted(), self.store.fingerprints(), "follows features and matches")

    def discard(self) -> None:
        """Drop all candidates."""
        self.store.discard(lambda key: True)

    def run(self) -> None:
        """Find what is missing."""
        wanted = self.wanted()
        need(wanted is not None, self.name, "match")
        assert wanted is not None
        make_parts(
            self.context,
            self.name,
            self.store,
            wanted,
            lambda todo: self._records(todo, wanted),
            unit="queries",
            shard=SHARD,
        )

    def query_cameras(self, names: Sequence[str]) -> dict[str, colmap.Camera]:
        """The cameras of queries."""
        sizes = {}
        for name in names:
            width, height = self.extract.store.read(name, only="image_size")["image_size"][0]
            sizes[name] = (int(width), int(height))
        assigned = cameras.assign(self.camera_config, self.context.dataset, sizes)
        return {name: assigned.cameras[assigned.camera_ids[name]] for name in names}

    def _records(self, todo: list[str], wanted: Mapping[str, str]) -> Iterator[Record]:
        if not todo:
            return
        points, _ = self.scans.points(self.extract)
        known = self.query_cameras(todo)
        search = _Search(self, points) if isinstance(self.config, DirectConfig) else None
        compared = self._compared()
        for name in todo:
            started = time.perf_counter()
            if search is not None:
                found, most = self._direct(name, known[name], search)
            else:
                found, most = self._matched(name, compared[name], known[name], points)
            seconds = time.perf_counter() - started
            yield CandidateStore.record(name, wanted[name], _stored(found, most, seconds))

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
            {other: self.match.store.load_from(name, other) for other in others},
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
        return np.asarray(self.extract.store.read(name, only="keypoints")["keypoints"], np.float32)

    def _edge_px(self, name: str) -> int:
        return int(self.extract.store.read(name, only="image_size")["image_size"].max())


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
        stored = self.stage.extract.store.read(name, only="descriptors")["descriptors"]
        return as_tensor(stored, self.device)

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
