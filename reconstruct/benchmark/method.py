"""One method of a benchmark, from images to a score for every pair.

    extractors/NAME-HASH/features/   methods with equal extractor settings share them
    methods/LABEL/matches/           and refined/, where the method refines positions
    methods/LABEL/scores.json

It reuses the stages Extract and Match, so it resumes by image and by pair as they do.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from reconstruct.benchmark.protocols import Benchmark, PairScore
from reconstruct.benchmark.refine_pairs import RefinePairs
from reconstruct.config import Section
from reconstruct.errors import DataError
from reconstruct.geometry import Float64
from reconstruct.matching.config import MatchConfig, default_match
from reconstruct.refinement.settings import RefineConfig
from reconstruct.stages import Context, Plan, Summary
from reconstruct.stages.compact import CompactConfig
from reconstruct.stages.extract import Extract, ExtractConfig, LocalConfig
from reconstruct.stages.match import Match
from reconstruct.types import ImagePair
from reconstruct.workspace import Workspace, atomic_path, fingerprint

logger = logging.getLogger(__name__)


class MethodConfig(Section):
    """An entry of section ``methods``."""

    label: str = Field(pattern=r"^\w[\w .+-]*$")
    """Names the method in tables, files, and --only; unique."""
    local: LocalConfig
    """The extractor, as in ``extract.local`` of other pipelines."""
    compact: CompactConfig = CompactConfig.model_validate({})
    """How descriptors are stored, as in ``extract.compact``."""
    match: MatchConfig = default_match()
    refine: RefineConfig | None = None
    """Move matched positions until their surroundings agree ({}: with the default settings)."""


@dataclass(frozen=True, slots=True)
class GivenPairs:
    """The benchmark's pairs as a `reconstruct.stages.match.PairSource`."""

    extract: Extract
    all_pairs: Sequence[ImagePair]

    def choose(self, names: Sequence[str]) -> list[ImagePair]:
        """Those of which both images are in ``names``."""
        known = set(names)
        return [pair for pair in self.all_pairs if known.issuperset(pair)]

    def pairs(self) -> list[ImagePair]:
        """Those of which both images have features."""
        return self.choose(self.extract.available())

    def up_to_date(self) -> bool:
        """Always: the list comes with the data."""
        return True


class Method:
    """Extract, match, refine (if asked for), score."""

    def __init__(
        self, context: Context, config: MethodConfig, benchmark: Benchmark, extract: Extract
    ) -> None:
        self.name = config.label
        self.context = context
        self.config = config
        self.benchmark = benchmark
        self.workspace = Workspace(context.workspace.root / "methods" / config.label)
        self.artifact = self.workspace.root / "scores.json"
        self.extract = extract
        self.pairs = GivenPairs(extract, next(iter(benchmark.groups.values())))
        inner = inner_context(context, self.workspace)
        self.match = Match(inner, config.match, extract, self.pairs)
        self.steps: list[Extract | Match | RefinePairs] = [extract, self.match]
        self.refine: RefinePairs | None = None
        if config.refine is not None:
            self.refine = RefinePairs(inner, config.refine, extract, self.match)
            self.steps.append(self.refine)

    def fingerprint(self, pairs: Sequence[ImagePair]) -> str:
        """Over the ground truth and the matched positions of ``pairs``."""
        before = self.refine or self.match
        positions = [[*pair, value] for pair, value in before.wanted(pairs).items()]
        return fingerprint("scores", self.benchmark.identity(), positions)

    def plan(self) -> Plan:
        """The first thing to do: images, matches, positions, or the scores alone."""
        foreseen = self.pairs.choose(list(self.extract.wanted()))
        current = self.workspace.stamp(self.artifact) == self.fingerprint(foreseen)
        if current and self.scores():
            return Plan("done", "up to date", 0)
        for step in self.steps:
            found = step.plan()
            if found.todo:
                return replace(found, why=f"{step.name}: {found.why}")
        return Plan("missing", "scores")

    def discard(self) -> None:
        """Drop all it made, features too (also those of methods that share them)."""
        self.workspace.set_stamp(self.artifact, None)
        for step in reversed(self.steps):
            step.discard()

    def run(self) -> None:
        """Bring features, matches, positions, scores up to date. Raises DataError without pairs."""
        if self.plan().state != "done":
            logger.info("method %s", self.name)
            self.extract.run()
            if not self.pairs.pairs():
                raise DataError(f"{self.name}: no pair of which both images have features")
            for step in self.steps[1:]:
                step.run()
            self._write_scores(self.pairs.pairs())
        found = self.scores()
        self.context.summary.figures[self.name] = {
            "mean_features": round(self.mean_features(), 1),
            "mean_matches": round(float(np.mean([score.matches for score in found.values()])), 1),
            "pairs": len(found),
        }

    def mean_features(self) -> float:
        """Mean number of keypoints an image."""
        names = self.extract.available()
        counts = [len(self.extract.store.read(name, only="scores")["scores"]) for name in names]
        return float(np.mean(counts)) if counts else 0.0

    def scores(self) -> dict[ImagePair, PairScore]:
        """The committed scores; empty if there are none that are up to date and readable."""
        if self.workspace.stamp(self.artifact) != self.fingerprint(self.pairs.pairs()):
            return {}
        try:
            rows = json.loads(self.artifact.read_text(encoding="utf-8"))
            return {(row["pair"][0], row["pair"][1]): _score(row) for row in rows}
        except (ValueError, KeyError, TypeError):
            return {}  # unreadable counts as missing

    def _positions(self, pair: ImagePair) -> tuple[Float64, Float64]:
        """(M, 2), (M, 2) matched positions in COLMAP pixels."""
        if self.refine is not None:
            return self.refine.positions(pair)
        rows = self.match.store.load(pair)
        first, second = (
            self.extract.store.read(name, only="keypoints")["keypoints"].astype(np.float64)
            for name in pair
        )
        return first[rows[:, 0]], second[rows[:, 1]]

    def _write_scores(self, pairs: Sequence[ImagePair]) -> None:
        rows = []
        with self.context.reporter.task("score", len(pairs), "pairs") as advance:
            for pair in pairs:
                size = self.extract.store.read(pair[0], only="image_size")["image_size"][0]
                score = self.benchmark.score(pair, *self._positions(pair), (size[0], size[1]))
                rows.append({"pair": list(pair), **asdict(score)})
                advance()
        write_json(self.artifact, rows)
        self.workspace.set_stamp(self.artifact, self.fingerprint(pairs))


def _score(row: dict[str, Any]) -> PairScore:
    return PairScore(
        matches=row["matches"],
        shares=tuple(row["shares"]),
        error_px=float("inf") if row["error_px"] is None else row["error_px"],
    )


def shared_extracts(context: Context, configs: Sequence[MethodConfig]) -> list[Extract]:
    """The stage Extract of each method, the same object where the settings are equal."""
    stages: dict[str, Extract] = {}
    result = []
    for config in configs:
        local, compact = config.local.identity(), config.compact.identity()
        folder = f"{local['name']}-{fingerprint('extractor', local, compact)[:8]}"
        if folder not in stages:
            workspace = Workspace(context.workspace.root / "extractors" / folder)
            settings = {"local": config.local, "compact": config.compact}
            inner = inner_context(context, workspace)
            stages[folder] = Extract(inner, ExtractConfig.model_validate(settings))
        result.append(stages[folder])
    return result


def inner_context(context: Context, workspace: Workspace) -> Context:
    """The same run in a folder of its own; what it skips is told with the whole run's."""
    return replace(context, workspace=workspace, summary=Summary(skipped=context.summary.skipped))


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; infinite numbers become null."""
    with atomic_path(path) as temporary:
        text = json.dumps(_finite(content), indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not np.isfinite(content) else content
