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
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from reconstruct.atomic import atomic_path
from reconstruct.benchmark.protocols import Benchmark, PairScore
from reconstruct.benchmark.refine_pairs import RefinePairs
from reconstruct.config import Section
from reconstruct.errors import DataError, MissingLibraryError, WeightsError
from reconstruct.files import read_json
from reconstruct.fingerprints import fingerprint
from reconstruct.geometry import Float64
from reconstruct.matching.config import MatchConfig, default_match
from reconstruct.refinement.settings import RefineConfig
from reconstruct.stages import Context, Plan, inner_context
from reconstruct.stages.compact import CompactConfig
from reconstruct.stages.extract import Extract
from reconstruct.stages.extract_settings import ExtractConfig, LocalConfig
from reconstruct.stages.keyed import KeyedStage
from reconstruct.stages.match import Match
from reconstruct.stages.pair import GivenPairs
from reconstruct.stages.whole import WholeStage
from reconstruct.types import ImagePair
from reconstruct.workspace import Workspace

logger = logging.getLogger("reconstruct")

UNAVAILABLE = (WeightsError, MissingLibraryError)
"""Errors of a method that cannot run on this machine, whatever the data."""


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


class Method(WholeStage):
    """Extract, match, refine (if asked for), score."""

    def __init__(
        self, context: Context, config: MethodConfig, benchmark: Benchmark, extract: Extract
    ) -> None:
        workspace = Workspace(context.workspace.root / "methods" / config.label)
        inner = inner_context(context, workspace)
        self.extract = extract
        self.pairs = GivenPairs(extract, next(iter(benchmark.groups.values())))
        self.match = Match(inner, config.match, extract, self.pairs)
        self.refine: RefinePairs | None = None
        if config.refine is not None:
            self.refine = RefinePairs(inner, config.refine, extract, self.match)
        self.last = self.refine or self.match
        outer = replace(context, workspace=workspace)
        super().__init__(outer, workspace.root / "scores.json", [self.last])
        self.name = config.label
        self.benchmark = benchmark

    def steps(self) -> list[KeyedStage]:
        """The stages behind the scores, in their order."""
        steps: list[KeyedStage] = [self.extract, self.match]
        return steps if self.refine is None else [*steps, self.refine]

    def find_fingerprint(self) -> str | None:
        """Fingerprint over the ground truth and the matched positions; None where the method cannot
        run here."""
        try:
            positions = self.last.fingerprints()
        except UNAVAILABLE:
            return None
        if positions is None:
            return None
        return fingerprint("scores", self.benchmark.identity(), sorted(positions.items()))

    def plan(self) -> Plan:
        """The first thing to do: images, matches, positions, or the scores alone."""
        for step in self.steps():
            try:
                plan = step.plan()
            except UNAVAILABLE as error:
                return Plan("missing", f"left out: {error}", 0, 0)
            if plan.todo:
                return replace(plan, why=f"{step.name}: {plan.why}")
        return super().plan()

    def discard(self) -> None:
        """Drop all it made, features too (also those of methods that share them)."""
        super().discard()
        for step in reversed(self.steps()):
            step.discard()

    def settle(self) -> None:
        """Take what is stored as it is."""
        for step in self.steps():
            step.settle()
        super().settle()

    def run(self) -> None:
        """Bring features, matches, positions, scores up to date. Raises DataError without pairs.

        A method whose weights or library are missing is left out with a warning; the table is made
        without it.
        """
        try:
            self._run()
        except UNAVAILABLE as error:
            self.context.summary.skipped[self.name] = str(error)
            logger.warning("%s is left out: %s", self.name, error)

    def _run(self) -> None:
        self.extract.run()
        if not self.pairs.pairs():
            raise DataError(f"{self.name}: no pair of which both images have features")
        for step in self.steps()[1:]:
            step.run()
        super().run()

    def figures(self) -> dict[str, Any]:
        """How many features, matches and pairs."""
        scores = self.scores()
        return {
            "mean_features": round(self.mean_features(), 1),
            "mean_matches": round(float(np.mean([score.matches for score in scores.values()])), 1),
            "pairs": len(scores),
        }

    def mean_features(self) -> float:
        """Mean number of keypoints an image."""
        counts = self.extract.features.lengths("scores")
        names = self.extract.available()
        return float(np.mean([counts[name] for name in names])) if names else 0.0

    def scores(self) -> dict[ImagePair, PairScore]:
        """The committed scores; empty if there are none that are up to date and readable."""
        return _read_scores(self.artifact) if self.artifact_current() else {}

    def artifact_current(self) -> bool:
        """Whether the scores are those of the present matches, and readable."""
        return super().artifact_current() and bool(_read_scores(self.artifact))

    def _positions(self, pair: ImagePair) -> tuple[Float64, Float64]:
        """(M, 2), (M, 2) matched positions in COLMAP pixels."""
        if self.refine is not None:
            return self.refine.positions(pair)
        matches = self.match.matches.load(pair)
        first, second = (self.extract.features.keypoints(n).astype(np.float64) for n in pair)
        return first[matches[:, 0]], second[matches[:, 1]]

    def make(self) -> None:
        """Write scores.json."""
        pairs = self.pairs.pairs()
        rows = []
        with self.context.reporter.task("score", len(pairs), "pairs") as advance:
            for pair in pairs:
                size = self.extract.features.image_size(pair[0])
                score = self.benchmark.score(pair, *self._positions(pair), size)
                rows.append({"pair": list(pair), **asdict(score)})
                advance()
        write_json(self.artifact, rows)


def _read_scores(path: Path) -> dict[ImagePair, PairScore]:
    try:
        rows = read_json(path)
        return {(row["pair"][0], row["pair"][1]): _score(row) for row in rows}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # unreadable counts as missing


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
