"""Pair: which images are matched with which -> pairs.txt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reconstruct import colmap
from reconstruct.errors import ConfigError, EstimationError, UsageError
from reconstruct.fingerprints import file_hash, fingerprint, tree_hash
from reconstruct.stages import Context, Plan, Precursor
from reconstruct.stages.extract import Extract
from reconstruct.stages.global_ import Global
from reconstruct.stages.pair_methods import PairMethods
from reconstruct.stages.pair_settings import (
    CovisibilityConfig,
    ExhaustiveConfig,
    GpsPairsConfig,
    PairConfig,
    PosesConfig,
    QueryList,
    QueryRetrieval,
    SequentialConfig,
)
from reconstruct.stages.whole import WholeStage
from reconstruct.storage.pairs import read_pairs, write_pairs
from reconstruct.types import ImagePair

MANY_PAIRS = 300_000
"""So many pairs take two days at half a second each: 775 photos, each with each."""


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
        rigs = self.context.dataset.rigs
        if isinstance(self.config, SequentialConfig) and rigs is not None:
            content.append(rigs.content)
        if rigs is not None and rigs.one_place:
            content.append(f"frames of {rigs.content} are not paired with themselves")
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
        if self._retrieves() and not (self.global_ and self.global_.current()):
            return None
        return PairMethods(self.context, self.config, self.reference, self.global_).choose(names)

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
        planned, advice = super().plan(), self.advice()
        if planned.state == "done" or advice is None:
            return planned
        return replace(planned, why=f"{planned.why}; {advice.removeprefix('pair: ')}")

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
