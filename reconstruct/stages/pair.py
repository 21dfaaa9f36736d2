"""Pair: which images are matched with which -> pairs.txt."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from reconstruct import colmap
from reconstruct.config import NotIdentity, Section
from reconstruct.errors import ConfigError, EstimationError, UsageError
from reconstruct.matching.covisibility import covisibility_pairs, sees_points
from reconstruct.matching.pairs import (
    exhaustive_pairs,
    frame_pairs,
    pose_pairs,
    position_pairs,
    sequential_pairs,
)
from reconstruct.retrieval.nearest import nearest, neighbor_pairs
from reconstruct.stages import Context, Plan, Precursor
from reconstruct.stages.extract import Extract
from reconstruct.stages.global_ import Global
from reconstruct.stages.whole import WholeStage
from reconstruct.storage.pairs import ordered, read_pairs, write_pairs
from reconstruct.types import ImagePair
from reconstruct.workspace import file_hash, fingerprint, tree_hash

logger = logging.getLogger(__name__)


class QueryExhaustive(Section):
    """Every image with every other; every query with every image of the map."""

    method: Literal["exhaustive"] = "exhaustive"


class QueryRetrieval(Section):
    """The most similar by global descriptor (``extract.global``)."""

    method: Literal["retrieval"]
    neighbors: int = Field(20, ge=1)
    """Neighbours of each image (or query)."""


class QueryList(Section):
    """Two names a line in a text file."""

    method: Literal["list"]
    path: Annotated[str, NotIdentity]


class _MapPairs(Section):
    queries: Annotated[
        QueryExhaustive | QueryRetrieval | QueryList, Field(discriminator="method")
    ] = QueryExhaustive()
    """How photos to localize are paired with those of the map."""


class ExhaustiveConfig(_MapPairs, QueryExhaustive):
    """Every image with every other: best up to some hundred images."""


class SequentialConfig(_MapPairs):
    """Each image with its successors in the order of names: videos.

    Of cameras that are mounted together (``dataset.rigs``), each frame with its successors."""

    method: Literal["sequential"]
    overlap: int = Field(10, ge=1)
    """Number of successors."""
    quadratic: bool = False
    """Also the successors at distances 2, 4, 8 ... up to 2 ** overlap."""
    loop_every: int | None = Field(None, ge=1)
    """Every so many images, one is matched with all others that are so chosen: closes loops."""


class RetrievalConfig(_MapPairs, QueryRetrieval):
    """The most similar by global descriptor (``extract.global``): large collections."""

    within_folders: bool = False
    """Only images of the same folder."""


class PosesConfig(_MapPairs):
    """The nearest by position and view direction in a reference model."""

    method: Literal["poses"]
    reference: Annotated[str | None, NotIdentity] = None
    """COLMAP model folder with poses; null: that from which the map is triangulated."""
    neighbors: int = Field(20, ge=1)
    """Neighbours of each image."""
    max_angle_deg: float = Field(45.0, gt=0, le=180)
    """Images that look farther apart than this are not matched."""


class GpsPairsConfig(_MapPairs):
    """The nearest by position (``dataset.gps``): photos with GPS.

    A photo without a position may be anywhere, and is paired with all others."""

    method: Literal["gps"]
    neighbors: int = Field(20, ge=1)
    """Neighbours of each image."""
    max_distance_m: float | None = Field(None, gt=0)
    """Images farther apart are not matched; null: any."""
    overlap: int = Field(2, ge=0)
    """Also so many successors of each image in the order of names: they hold those whose position
    is far off."""


class CovisibilityConfig(_MapPairs):
    """Images that share most points of a reference model."""

    method: Literal["covisibility"]
    reference: Annotated[str | None, NotIdentity] = None
    """COLMAP model folder with points; null: that from which the map is triangulated."""
    neighbors: int = Field(20, ge=1)
    """Neighbours of each image."""


class ListConfig(_MapPairs, QueryList):
    """Two names a line in a text file."""


class NoneConfig(_MapPairs):
    """Images of the map with none: an RGB-D map has its points, only queries are matched."""

    method: Literal["none"]


PairConfig = Annotated[
    ExhaustiveConfig
    | SequentialConfig
    | RetrievalConfig
    | PosesConfig
    | GpsPairsConfig
    | CovisibilityConfig
    | ListConfig
    | NoneConfig,
    Field(discriminator="method"),
]


MANY_PAIRS = 300_000
"""Pairs that take two days where one takes half a second: 775 photos, each with each."""


class Pair(WholeStage):
    """The stage."""

    name = "pair"

    def __init__(
        self,
        context: Context,
        config: PairConfig,
        extract: Extract,
        global_: Global | None = None,
    ) -> None:
        before: list[Precursor] = [extract]
        if global_ is not None:
            before.append(global_)
        super().__init__(context, context.workspace.pairs, before)
        self.config = config
        self.extract = extract
        self.global_ = global_
        self._pairs: list[ImagePair] | None = None
        self.with_queries = bool(context.dataset.queries)
        if isinstance(config, GpsPairsConfig) and context.dataset.gps is None:
            raise ConfigError(
                "pair.method: gps needs dataset.gps: {} for the photos' EXIF data, or "
                "{positions: FILE.csv}"
            )
        if self._retrieves() and global_ is None:
            raise ConfigError("pair.method: retrieval needs section `extract.global`, e.g. gem")
        self.reference = self._reference()
        if self.reference is not None:
            colmap.check_model(self.reference)
        for path in self._lists():
            if not path.is_file():
                raise UsageError(f"{path}: no such list of pairs")

    def _lists(self) -> list[Path]:
        parts = (self.config, self.config.queries)
        return [Path(part.path) for part in parts if isinstance(part, QueryList)]

    def _reference(self) -> Path | None:
        if not isinstance(self.config, PosesConfig | CovisibilityConfig):
            return None
        given = self.config.reference
        folder = colmap.model_folder(Path(given)) if given else self.context.dataset.poses
        if folder is None:
            raise ConfigError(
                "pair.reference: required (a COLMAP model), as neither the data set nor "
                "map.reference brings poses"
            )
        return folder

    def _retrieves(self) -> bool:
        used = [self.config, self.config.queries] if self.with_queries else [self.config]
        return any(isinstance(part, QueryRetrieval) for part in used)

    def advice(self) -> str | None:
        """What to say before a run whose pairs will take days; None for others."""
        mapped = len(self.context.dataset.names) - len(self.context.dataset.query_names)
        count = mapped * (mapped - 1) // 2
        if not isinstance(self.config, ExhaustiveConfig) or count < MANY_PAIRS:
            return None
        return (
            f"pair: exhaustive over {mapped:,} photos makes {count:,} pairs, which will take days "
            "on a CPU and hours on a GPU; pair.method: retrieval with 20 neighbors (and section "
            f"extract.global) makes at most {20 * mapped:,}, pair.method: sequential still fewer"
        )

    def find_fingerprint(self) -> str | None:
        """Fingerprint over the settings, what they point to, and the images."""
        return self._fingerprint_of(self.extract.names())

    def _fingerprint_of(self, names: Sequence[str]) -> str | None:
        content: list[str | None] = [file_hash(path) for path in self._lists()]
        if self.reference is not None:
            content.append(tree_hash(self.reference))
        if isinstance(self.config, GpsPairsConfig) and self.context.dataset.gps is not None:
            content.append(self.context.dataset.gps.identity())
        if isinstance(self.config, SequentialConfig) and self.context.dataset.rigs is not None:
            content.append(self.context.dataset.rigs.content)
        if self.global_ is not None and self._retrieves():
            content.append(self.global_.fingerprint())
            if content[-1] is None:
                return None
        queries = sorted(self.context.dataset.query_names & set(names))
        return fingerprint("pairs", self.config.identity(), content, list(names), queries)

    def pairs(self) -> list[ImagePair] | None:
        """The committed pairs where they are current, else those that will be chosen.

        None where these depend on global descriptors that are not there yet.
        """
        if self._pairs is None or not self.settled:
            names = self.extract.names()
            if self.artifact_current():
                self._pairs = read_pairs(self.artifact, names)[0]
            else:
                self._pairs = self._choose(names)
        return self._pairs

    def _choose(self, names: Sequence[str]) -> list[ImagePair] | None:
        """The pairs of ``names`` by the configured methods; what they leave out is reported."""
        if self._retrieves() and not (self.global_ and self.global_.current()):
            return None
        queries = self.context.dataset.query_names
        mapped = [name for name in names if name not in queries]
        pairs = self._map_pairs(mapped, names)
        if self.with_queries:
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
            return self._similar(mapped, mapped, config.neighbors, config.within_folders)
        if isinstance(config, PosesConfig):
            poses = colmap.model_poses(colmap.read_model(self._model()))
            known = {name: poses[name] for name in self._known(mapped, poses)}
            return pose_pairs(known, config.neighbors, config.max_angle_deg)
        if isinstance(config, GpsPairsConfig):
            return self._near(mapped, config)
        if isinstance(config, CovisibilityConfig):
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
                    f"{self.reference}: no two photos of it share a 3D point; use "
                    "pair.method: poses"
                )
            return pairs
        if isinstance(config, ListConfig):
            known_names = set(mapped)
            return [pair for pair in self._listed(config.path, names) if set(pair) <= known_names]
        return exhaustive_pairs(mapped)

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

    def _query_pairs(
        self, asked: Sequence[str], mapped: Sequence[str], names: Sequence[str]
    ) -> list[ImagePair]:
        config = self.config.queries
        if isinstance(config, QueryRetrieval):
            return self._similar(asked, mapped, config.neighbors)
        if isinstance(config, QueryList):
            queries = set(asked)
            listed = self._listed(config.path, names)
            return [pair for pair in listed if len(queries & set(pair)) == 1]
        return [ordered(query, other) for query in asked for other in mapped]

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
        self,
        asked: Sequence[str],
        mapped: Sequence[str],
        neighbors: int,
        within_folders: bool = False,
    ) -> list[ImagePair]:
        if not asked or not mapped:
            return []
        assert self.global_ is not None  # checked when the stage was made
        index = self.global_.index()
        labels = None
        if within_folders:
            folders = [str(PurePosixPath(name).parent) for name in mapped]
            labels = np.unique(folders, return_inverse=True)[1].astype(np.int64)
        found, _ = nearest(
            index.select(list(asked)),
            index.select(list(mapped)),
            neighbors,
            query_labels=labels,
            database_labels=labels,
            itself=asked is mapped,
        )
        return neighbor_pairs(asked, mapped, found)

    def query_pairs(self) -> dict[str, list[str]]:
        """Query -> the images of the map that it is paired with, both sorted."""
        queries = self.context.dataset.query_names
        others: dict[str, list[str]] = {n: [] for n in self.extract.names() if n in queries}
        for first, second in self.pairs() or []:
            for query, other in ((first, second), (second, first)):
                if query in queries and other not in queries:
                    others[query].append(other)
        return others

    def plan(self) -> Plan:
        """Whether pairs.txt will still stand once the images are extracted."""
        if self.extract.plan().todo:
            stamp = self.workspace.stamp(self.artifact)
            if stamp is not None and stamp == self._fingerprint_of(self.extract.available()):
                return Plan("waiting", "the list of images may change with extract")
        return super().plan()

    def make(self) -> None:
        """Write pairs.txt. Raises EstimationError if there is no pair at all."""
        names = self.extract.names()
        pairs = self._choose(names)
        if pairs is None:
            raise UsageError("pairs from retrieval need global descriptors: run stage global first")
        if not pairs:
            raise EstimationError(
                f"{len(names)} readable image(s) and no pair to match: at least two photos of one "
                "scene are needed"
            )
        write_pairs(self.artifact, pairs)

    def figures(self) -> dict[str, Any]:
        """How many pairs, and how many of them with a query."""
        figures = {"pairs": len(self.pairs() or [])}
        if self.with_queries:
            figures["of_queries"] = sum(map(len, self.query_pairs().values()))
        return figures


@dataclass(frozen=True, slots=True)
class GivenPairs:
    """A list of pairs in place of the stage: of a benchmark, or of a caller in Python."""

    extract: Extract
    all_pairs: Sequence[ImagePair]
    name: str = "pairs"

    def pairs(self) -> list[ImagePair]:
        """The pairs of which both images have features."""
        known = set(self.extract.names())
        return [pair for pair in self.all_pairs if known.issuperset(pair)]

    def current(self) -> bool:
        """Always: the list is given."""
        return True
