"""The methods of pairing: photos of the map among each other, and queries with those of the map."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from reconstruct import colmap
from reconstruct.errors import EstimationError
from reconstruct.matching.covisibility import covisibility_pairs, sees_points
from reconstruct.matching.pairs import (
    exhaustive_pairs,
    frame_pairs,
    pose_pairs,
    position_pairs,
    sequential_pairs,
)
from reconstruct.retrieval.approximate import nearly_nearest
from reconstruct.retrieval.nearest import nearest, neighbor_pairs
from reconstruct.stages import Context
from reconstruct.stages.global_ import Global
from reconstruct.stages.pair_settings import (
    CovisibilityConfig,
    GpsPairsConfig,
    ListConfig,
    NoneConfig,
    PairConfig,
    PosesConfig,
    QueryList,
    QueryRetrieval,
    RetrievalConfig,
    SequentialConfig,
)
from reconstruct.storage.pairs import ordered, read_pairs
from reconstruct.types import ImagePair

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class PairMethods:
    """The pairs that a section ``pair`` asks for, whose needs have been checked by the stage.

    Photos that a method has to leave out are told in the run's summary.

    Args:
        context: The run's photos, with their positions, rigs and queries.
        config: The section.
        reference: COLMAP model folder of the methods ``poses`` and ``covisibility``.
        global_: Global descriptors of the photos, for ``retrieval``.
    """

    context: Context
    config: PairConfig
    reference: Path | None
    global_: Global | None

    def choose(self, names: Sequence[str]) -> list[ImagePair]:
        """The pairs of the images ``names``, queries among them; sorted."""
        queries = self.context.dataset.query_names
        mapped = [name for name in names if name not in queries]
        pairs = self._map_pairs(mapped, names)
        rigs = self.context.dataset.rigs
        if rigs is not None and rigs.one_place:
            pairs = [pair for pair in pairs if rigs.frame(pair[0]) != rigs.frame(pair[1])]
        if self.context.dataset.queries:
            asked = [name for name in names if name in queries]
            pairs = sorted({*pairs, *self._query_pairs(asked, mapped, names)})
        return pairs

    def _map_pairs(self, mapped: Sequence[str], names: Sequence[str]) -> list[ImagePair]:
        config = self.config
        if isinstance(config, NoneConfig):
            return []
        if isinstance(config, SequentialConfig):
            rigs = self.context.dataset.rigs
            frames = {n: n if rigs is None else rigs.frame(n) for n in mapped}
            return frame_pairs(frames, config.overlap, config.quadratic, config.loop_every)
        if isinstance(config, RetrievalConfig):
            return self._similar(mapped, mapped, config)
        if isinstance(config, PosesConfig):
            poses = colmap.model_poses(colmap.read_model(self._model()))
            known = {name: poses[name] for name in self._known(mapped, poses)}
            return pose_pairs(known, config.neighbors, config.max_angle_deg)
        if isinstance(config, GpsPairsConfig):
            return self._near(mapped, config)
        if isinstance(config, CovisibilityConfig):
            return self._covisible(mapped, config)
        if isinstance(config, ListConfig):
            known_names = set(mapped)
            return [pair for pair in self._listed(config.path, names) if set(pair) <= known_names]
        return exhaustive_pairs(mapped)

    def _query_pairs(
        self, asked: Sequence[str], mapped: Sequence[str], names: Sequence[str]
    ) -> list[ImagePair]:
        config = self.config.queries
        if isinstance(config, QueryRetrieval):
            return self._similar(asked, mapped, config)
        if isinstance(config, QueryList):
            queries = set(asked)
            listed = self._listed(config.path, names)
            return [pair for pair in listed if len(queries & set(pair)) == 1]
        return [ordered(query, other) for query in asked for other in mapped]

    def _near(self, mapped: Sequence[str], config: GpsPairsConfig) -> list[ImagePair]:
        gps = self.context.dataset.gps
        assert gps is not None  # checked when the stage was made
        known = {name: gps.positions[name] for name in mapped if name in gps.positions}
        pairs = set(position_pairs(known, config.neighbors, config.max_distance_m))
        if config.overlap:
            pairs |= set(sequential_pairs(mapped, config.overlap))
        without = sorted(set(mapped) - set(known))
        if without:
            logger.warning(
                "pair: %d photos without a position are paired with all others, e.g. %s",
                len(without),
                without[0],
            )
        pairs |= {ordered(name, other) for name in without for other in mapped if other != name}
        return sorted(pairs)

    def _covisible(self, mapped: Sequence[str], config: CovisibilityConfig) -> list[ImagePair]:
        model = colmap.read_model(self._model())
        tracks = colmap.Tracks(model)
        seen = {name: tracks.points(name) for name in self._known(mapped, tracks.names)}
        if not sees_points(seen):  # as if `pair.method: poses` had been asked for
            logger.info("pair: %s has poses alone; pairs follow these", self.reference)
            poses = colmap.model_poses(model)
            return pose_pairs({name: poses[name] for name in seen}, config.neighbors)
        pairs = covisibility_pairs(seen, config.neighbors)
        if len(seen) > 1 and not pairs:
            raise EstimationError(
                f"{self.reference}: no two photos of it share a 3D point; use pair.method: poses"
            )
        return pairs

    def _model(self) -> Path:
        assert self.reference is not None  # the methods that ask for it have one
        return self.reference

    def _known(self, names: Sequence[str], posed: Collection[str]) -> list[str]:
        posed = set(posed)
        for name in sorted(set(names) - posed):
            self.context.summary.skipped[name] = f"no pose in {self.reference}: not paired"
        return [name for name in names if name in posed]

    def _listed(self, path: str, names: Sequence[str]) -> list[ImagePair]:
        pairs, absent = read_pairs(Path(path), names)
        for line in absent:
            self.context.summary.skipped[line] = f"pair in {path} without its images"
        return pairs

    def _similar(
        self, asked: Sequence[str], mapped: Sequence[str], config: QueryRetrieval
    ) -> list[ImagePair]:
        if not asked or not mapped:
            return []
        assert self.global_ is not None  # checked when the stage was made
        index, itself = self.global_.index(), asked is mapped
        database = index.select(list(mapped))
        queries = database if itself else index.select(list(asked))
        if isinstance(config, RetrievalConfig) and config.search == "faiss":
            found, _ = nearly_nearest(queries, database, config.neighbors, itself=itself)
            return neighbor_pairs(asked, mapped, found)
        labels = None
        if isinstance(config, RetrievalConfig) and config.within_folders:
            folders = [str(PurePosixPath(name).parent) for name in mapped]
            labels = np.unique(folders, return_inverse=True)[1].astype(np.int64)
        found, _ = nearest(
            queries,
            database,
            config.neighbors,
            query_labels=labels,
            database_labels=labels,
            itself=itself,
        )
        return neighbor_pairs(asked, mapped, found)
