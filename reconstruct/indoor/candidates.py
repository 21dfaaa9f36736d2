"""Candidates: matches of queries with an RGB-D map -> candidate poses, best by inliers first.

A way to candidate poses is Direct PE (all features of the map at once), Sparse PE (retrieved
images, local features) or Dense PE (retrieved images, grids of descriptors).
"""

from __future__ import annotations

from typing import Any

from reconstruct import colmap
from reconstruct.datasets import cameras
from reconstruct.fingerprints import fingerprint
from reconstruct.indoor.candidate_worker import CandidateWorker
from reconstruct.indoor.rgbd_map import RgbdMap
from reconstruct.indoor.ways import DenseCandidatesConfig, DirectConfig, PoseConfig, SparseConfig
from reconstruct.stages import Context
from reconstruct.stages.extract import Extract
from reconstruct.stages.keyed import KeyedStage, Worker
from reconstruct.stages.match import Match
from reconstruct.storage.candidates import CandidateStore
from reconstruct.storage.matches import pair_key
from reconstruct.storage.pairs import ordered


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
            known = set(self.scans.scans.places)
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
            found[name] = fingerprint(
                "candidates, own loss", common, name, camera, features[name], seen
            )
        return found

    def figures(self, made: int) -> dict[str, Any]:
        """How many queries have candidates."""
        return {"queries": len(self.known_fingerprints()), "estimated_now": made}

    def worker(self) -> Worker:
        """Estimates candidate poses."""
        return CandidateWorker(
            config=self.config,
            load_map=self.scans.loader(self.extract),
            features=self.extract.features,
            matches=None if self.match is None else self.match.matches,
            compared=self._compared() or {},
            cameras=self.query_cameras(),
            device=self.context.device,
            seed=self.context.seed,
        )

    def query_cameras(self) -> dict[str, colmap.Camera]:
        """The cameras of all queries."""
        names = sorted(self.known_fingerprints())
        sizes = self.extract.features.image_sizes(names)
        assigned = cameras.assign(self.camera_config, self.context.dataset, sizes)
        return {name: assigned.cameras[assigned.camera_ids[name]] for name in names}


__all__ = ["Candidates", "DenseCandidatesConfig", "DirectConfig", "PoseConfig", "SparseConfig"]
