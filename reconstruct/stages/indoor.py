"""Localization in RGB-D maps, several ways side by side: a pipeline file with section ``rows``.

extractors/NAME-HASH/features/      rows with equal extractor settings share them
matched/HASH/matches/               and those with equal matcher settings these
poses/METHOD-HASH/candidates/       candidate poses, and scores-HASH/ of Dense PV
rows/LABEL/poses.txt                the best candidate of each query; with a name for it, the
                                    server's file beside it
metrics.json                        where the truth is known: of all rows, for each floor
"""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from reconstruct.config import NotIdentity, Section
from reconstruct.datasets import Dataset
from reconstruct.datasets.depth_folder import DepthFolderConfig
from reconstruct.datasets.inloc import InLocConfig
from reconstruct.errors import ReconstructionError
from reconstruct.evaluation.localization import (
    LocalizationMetrics,
    Threshold,
    grouped_metrics,
    query_errors,
)
from reconstruct.evaluation.submission import check_submission, write_submission
from reconstruct.features.global_ import GemConfig, GlobalConfig
from reconstruct.features.retrieval import nearest, neighbor_pairs
from reconstruct.indoor.verification import VerificationConfig
from reconstruct.stages import Context, Plan, Stage
from reconstruct.stages.candidates import Candidates, DirectConfig, PoseConfig
from reconstruct.stages.compact import CompactConfig
from reconstruct.stages.evaluate import write_metrics
from reconstruct.stages.evaluate_queries import read_truth
from reconstruct.stages.extract import Extract, ExtractConfig, LocalConfig
from reconstruct.stages.global_ import Global
from reconstruct.stages.match import Match
from reconstruct.stages.method import inner_context
from reconstruct.stages.pose_verification import VerifyPoses
from reconstruct.stages.rgbd_map import RgbdMap
from reconstruct.storage.poses import read_poses, write_poses
from reconstruct.types import ImagePair, PoseEstimate
from reconstruct.workspace import Workspace, fingerprint

logger = logging.getLogger(__name__)

INLOC_THRESHOLDS: tuple[Threshold, ...] = ((0.25, 10.0), (0.5, 10.0), (1.0, 10.0))
"""Of visuallocalization.net for InLoc."""


class RetrievalSection(Section):
    """Section ``retrieval``: which images of the map a query is matched with, in all rows."""

    local: LocalConfig
    """The extractor whose pass global descriptors come from; rows with the same one share it."""
    global_: GlobalConfig = Field(GemConfig(), alias="global")
    """Global descriptors, as ``extract.global`` of other pipelines."""
    neighbors: int = Field(40, ge=1)
    """Images a query (InLoc: 100)."""


class RowConfig(Section):
    """An entry of section ``rows``."""

    label: str = Field(pattern=r"^\w[\w .,+-]*$")
    """Names the row in tables, files, and --only; unique."""
    poses: tuple[PoseConfig, ...] = Field(min_length=1, strict=False)
    """Ways to candidate poses; of several the union."""
    verification: VerificationConfig | None = None
    """Dense PV ({}: with the default settings) picks the candidate; null: most inliers do."""


class IndoorEvaluation(Section):
    """Section ``evaluate``."""

    reference: Annotated[str | None, NotIdentity] = None
    """Poses of the queries: a list, a folder of lists (one a floor), or a COLMAP model; null:
    those that come with the data set, where there are any."""
    thresholds: tuple[Annotated[tuple[float, float], Field(strict=False)], ...] = Field(
        INLOC_THRESHOLDS, strict=False
    )
    """Largest position error in metres and rotation error in degrees."""
    submission: bool = True
    """Write ``InLoc_eval_[LABEL].txt`` for visuallocalization.net."""


class IndoorConfig(Section):
    """A pipeline file with section ``rows``."""

    name: Annotated[str, NotIdentity]
    """Names the run; the output folder is output/NAME where --output is not given."""
    output: Annotated[str | None, NotIdentity] = None
    """Output folder."""
    seed: int = 0
    """Of every random choice."""
    dataset: Annotated[InLocConfig | DepthFolderConfig, Field(discriminator="format")]
    retrieval: RetrievalSection
    rows: tuple[RowConfig, ...] = Field(min_length=1, strict=False)
    evaluate: IndoorEvaluation = IndoorEvaluation.model_validate({})

    @model_validator(mode="after")
    def _check_labels(self) -> IndoorConfig:
        labels = [row.label for row in self.rows]
        for label in labels:
            if labels.count(label) > 1 or label in (Retrieval.name, CompareRows.name):
                raise ValueError(f"rows: label {label!r} is taken; give each its own")
        return self


def build_indoor(context: Context, config: IndoorConfig) -> list[Stage]:
    """The stages: retrieval, the rows, and their comparison."""
    parts = _Parts(context, config)
    retrieval = parts.retrieval
    rows = [Row(context, row, [parts.source(way) for way in row.poses]) for row in config.rows]
    for row in rows:
        if row.config.verification is not None:
            row.scores = [parts.scores(s, row.config.verification) for s in row.sources]
    return [retrieval, *rows, CompareRows(context, config.evaluate, rows)]


class Retrieval:
    """Which images of the map each query is matched with: a `match.PairSource`."""

    name = "retrieval"

    def __init__(self, context: Context, config: RetrievalSection, extract: Extract) -> None:
        self.context = context
        self.config = config
        self.extract = extract
        self.global_ = Global(extract.context, config.global_, extract)
        self._pairs: tuple[str, list[ImagePair]] | None = None

    def plan(self) -> Plan:
        """Whether global descriptors are up to date."""
        found = self.extract.plan()
        return found if found.todo else self.global_.plan()

    def discard(self) -> None:
        """Drop features and global descriptors."""
        self.global_.discard()
        self.extract.discard()

    def run(self) -> None:
        """Bring the global descriptors up to date."""
        self.extract.run()
        self.global_.run()
        figures = self.extract.context.summary.figures
        self.context.summary.figures[self.name] = {
            "images_of_map": len(self.extract.to_map()),
            "queries": len(self.context.dataset.queries),
            "pairs": len(self.pairs()),
            "extracted_now": figures[self.extract.name]["extracted_now"],
        }

    def up_to_date(self) -> bool:
        """Whether `pairs` stands for the present images."""
        return not self.extract.plan().todo and self.global_.up_to_date()

    def choose(self, names: Sequence[str]) -> list[ImagePair] | None:
        """The pairs within ``names``; None before there are global descriptors."""
        known = set(names)
        return [p for p in self.pairs() if known.issuperset(p)] if self.up_to_date() else None

    def pairs(self) -> list[ImagePair]:
        """All pairs."""
        value = self.global_.fingerprint()
        if self._pairs is None or self._pairs[0] != value:
            index, rgbd = self.global_.index(), self.context.dataset.rgbd
            available = set(self.extract.available())
            mapped = [name for name in (rgbd.names if rgbd else ()) if name in available]
            asked = [q.name for q in self.context.dataset.queries if q.name in available]
            chosen = (index.select(asked), index.select(mapped)) if asked and mapped else None
            found = nearest(*chosen, self.config.neighbors)[0] if chosen else np.zeros((0, 0), int)
            self._pairs = value, neighbor_pairs(asked if chosen else [], mapped, found)
        return self._pairs[1]


@dataclass(frozen=True, slots=True)
class RetrievedPairs:
    """The retrieved pairs of which both images have features of one extractor."""

    retrieval: Retrieval
    extract: Extract

    def choose(self, names: Sequence[str]) -> list[ImagePair] | None:
        """Those within ``names``."""
        return self.retrieval.choose(names)

    def pairs(self) -> list[ImagePair]:
        """Those that can be matched now."""
        known = set(self.extract.available())
        return [pair for pair in self.retrieval.pairs() if known.issuperset(pair)]

    def up_to_date(self) -> bool:
        """Whether the retrieval stands for the present images."""
        return self.retrieval.up_to_date()


class Source:
    """One way to candidate poses, with the stages before it."""

    def __init__(self, extract: Extract, match: Match | None, candidates: Candidates) -> None:
        self.extract = extract
        self.match = match
        self.candidates = candidates

    @property
    def steps(self) -> list[Stage]:
        """In their order."""
        return [step for step in (self.extract, self.match, self.candidates) if step is not None]

    def seconds(self, query: str) -> float:
        """What the poses of a query took, without matching."""
        return self.candidates.store.load(query).seconds


class _Parts:
    """Makes each stage once, however many rows ask for it."""

    def __init__(self, context: Context, config: IndoorConfig) -> None:
        self.context, self.config = context, config
        self.scans = RgbdMap(context, config.dataset)
        self._made: dict[str, Any] = {}
        extract = self._extract(config.retrieval.local, CompactConfig(), config.retrieval.global_)
        self.retrieval = Retrieval(context, config.retrieval, extract)

    def source(self, way: Any) -> Source:
        folder = f"{way.method}-{_hash(way)}"
        if folder not in self._made:
            context = self._inner("poses", folder)
            extract = self._extract(way.local, way.compact)
            match = None if isinstance(way, DirectConfig) else self._match(way, extract)
            candidates = Candidates(context, way, extract, match, self.scans, self.config.dataset)
            self._made[folder] = Source(extract, match, candidates)
        return self._made[folder]  # type: ignore[no-any-return]

    def scores(self, source: Source, config: VerificationConfig) -> VerifyPoses:
        before = source.candidates
        key = f"{before.context.workspace.root}-{_hash(config)}"
        if key not in self._made:
            self._made[key] = VerifyPoses(before.context, config, before, self.scans)
        return self._made[key]  # type: ignore[no-any-return]

    def _extract(self, local: Any, compact: CompactConfig, described: Any = None) -> Extract:
        folder = f"{local.name}-{_hash(local, compact)}"
        if folder not in self._made:
            settings = {"local": local, "compact": compact, "global": described}
            config = ExtractConfig.model_validate(settings)
            self._made[folder] = Extract(self._inner("extractors", folder), config)
        return self._made[folder]  # type: ignore[no-any-return]

    def _match(self, way: Any, extract: Extract) -> Match:
        folder = f"{way.local.name}-{_hash(way.local, way.compact, way.match)}-matched"
        if folder not in self._made:
            context = self._inner("matched", folder)
            pairs = RetrievedPairs(self.retrieval, extract)
            self._made[folder] = Match(context, way.match, extract, pairs)
        return self._made[folder]  # type: ignore[no-any-return]

    def _inner(self, *folders: str) -> Context:
        root = self.context.workspace.root.joinpath(*folders)
        return inner_context(self.context, Workspace(root))


def _hash(*sections: Section) -> str:
    return fingerprint("part", [section.identity() for section in sections])[:8]


class Row:
    """A row of the table: candidates of one or several ways, and what picks among them."""

    def __init__(self, context: Context, config: RowConfig, sources: list[Source]) -> None:
        self.name = config.label
        self.context = context
        self.config = config
        self.sources = sources
        self.scores: list[VerifyPoses] = []
        self.folder = context.workspace.root / "rows" / config.label
        self.poses = self.folder / "poses.txt"
        self.workspace = Workspace(self.folder)

    def steps(self) -> list[Stage]:
        """All stages behind the row, in their order."""
        return [*(step for source in self.sources for step in source.steps), *self.scores]

    def fingerprint(self) -> str | None:
        """Of the row's poses; None while stages before are incomplete."""
        last: Sequence[Candidates | VerifyPoses]
        last = self.scores or [source.candidates for source in self.sources]
        parts = [step.wanted() for step in last]
        if any(part is None for part in parts):
            return None
        return fingerprint("row", [sorted(part.items()) for part in parts if part is not None])

    def plan(self) -> Plan:
        """The first thing to do."""
        for step in self.steps():
            found = step.plan()
            if found.todo or found.state != "done":
                return Plan(found.state, f"{step.name}: {found.why}", found.todo, found.total)
        if self.workspace.stamp(self.poses) == self.fingerprint():
            return Plan("done", "up to date", 0)
        return Plan("missing", "poses.txt")

    def discard(self) -> None:
        """Forget poses, candidates and scores; features and matches stay."""
        self.workspace.set_stamp(self.poses, None)
        for source in self.sources:
            source.candidates.discard()
        for scores in self.scores:
            scores.discard()

    def run(self) -> None:
        """Bring all of it up to date, and write poses.txt."""
        if self.plan().state != "done":
            logger.info("row %s", self.name)
            for step in self.steps():
                started = time.perf_counter()
                step.run()
                if isinstance(step, Match):
                    self._time_matching(step, time.perf_counter() - started)
            self.workspace.set_stamp(self.poses, None)
            found = self.estimates()
            poses = {e.name: e.cam_from_world for e in found if e.cam_from_world is not None}
            write_poses(self.poses, poses)
            self.workspace.set_stamp(self.poses, self.fingerprint())
        self.context.summary.figures[self.name] = self.figures()

    def estimates(self) -> list[PoseEstimate]:
        """Of each query whose features are there, the best candidate, or a status without pose."""
        names = {name for source in self.sources for name in source.candidates.store.fingerprints()}
        return [self._pick(name) for name in sorted(names)]

    def _pick(self, name: str) -> PoseEstimate:
        ranked, most = [], 0
        for number, source in enumerate(self.sources):
            found = source.candidates.store.load(name)
            most = max(most, found.most_matches)
            count = len(found.poses)
            values = [0.0] * count
            if self.scores:
                values = self.scores[number].store.load(name).values.tolist()
            ranked += [
                (values[i], -found.inliers[i], number, i, found.poses[i], found.matches[i])
                for i in range(count)
            ]
        if not ranked:
            needed = min(source.candidates.config.min_inliers for source in self.sources)
            status = "too_few_matches" if most < needed else "ransac_failed"
            return PoseEstimate(name=name, status=status, matches=most)  # type: ignore[arg-type]
        _, inliers, _, _, pose, matches = min(ranked, key=lambda entry: entry[:4])
        return PoseEstimate(
            name=name, status="ok", matches=matches, inliers=-inliers, cam_from_world=pose
        )

    def _time_matching(self, match: Match, seconds: float) -> None:
        """Keep what matching took a pair, for the figures of later runs too."""
        now = match.context.summary.figures[match.name]["matched_now"]
        if now:
            path = match.context.workspace.root / "seconds_a_pair.txt"
            path.write_text(f"{seconds / now:.4g}\n", encoding="utf-8")

    def figures(self) -> dict[str, Any]:
        """What the summary tells of the row."""
        found = self.estimates()
        figures: dict[str, Any] = {
            "queries": len(found),
            "localized": sum(e.status == "ok" for e in found),
            "seconds_a_query": round(self.seconds(), 2),
            "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        }
        failed = [f"{e.name} ({e.status}, {e.matches} matches)" for e in found if e.status != "ok"]
        if failed:
            figures["failed"] = failed
        return figures

    def seconds(self) -> float:
        """Mean time of a query for matching, poses and Dense PV; features are not counted."""
        total = 0.0
        for source in self.sources:
            names = list(source.candidates.store.fingerprints())
            total += float(np.mean([source.candidates.store.load(n).seconds for n in names] or [0]))
            if source.match is not None:
                path = source.match.context.workspace.root / "seconds_a_pair.txt"
                pairs = len(source.match.pair.pairs()) / max(len(names), 1)
                total += pairs * float(path.read_text()) if path.is_file() else 0.0
        for step in self.scores:
            total += float(
                np.mean([step.store.load(n).seconds for n in step.store.fingerprints()] or [0])
            )
        return total


class CompareRows:
    """All rows side by side; those that have not run are left out."""

    name = "compare"

    def __init__(self, context: Context, config: IndoorEvaluation, rows: Sequence[Row]) -> None:
        self.context = context
        self.config = config
        self.rows = rows
        given = Path(config.reference) if config.reference else None
        self.reference = given or context.dataset.reference

    def plan(self) -> Plan:
        """Always done anew: it takes a moment."""
        return Plan("missing", "compares the rows that have run")

    def discard(self) -> None:
        """Nothing is kept."""

    def run(self) -> None:
        """Write submissions, metrics.json, and the tables of the summary."""
        done = [row for row in self.rows if row.workspace.stamp(row.poses) is not None]
        queries = [query.name for query in self.context.dataset.queries]
        if self.config.submission:
            for row in done:
                _submit(row, queries)
        if self.reference is None or not done:
            return
        groups = floors(self.context.dataset)
        truth = {n: pose for n, pose in read_truth(self.reference).items() if n in groups}
        if not truth:
            raise ReconstructionError(f"{self.reference}: has no pose of any query (by name)")
        metrics = {row.name: self._measure(row, truth, groups) for row in done}
        content = {
            name: {group: m.as_dict() for group, m in found.items()}
            for name, found in metrics.items()
        }
        write_metrics(self.context.workspace, {"rows": content})
        for group in next(iter(metrics.values())):
            table = rows_table({name: found[group] for name, found in metrics.items()})
            self.context.summary.tables[f"queries: {group}"] = table

    def _measure(
        self, row: Row, truth: Mapping[str, NDArray[np.float64]], groups: Mapping[str, str]
    ) -> dict[str, LocalizationMetrics]:
        errors = query_errors(read_poses(row.poses), truth)
        return grouped_metrics(errors, groups, self.config.thresholds)


def floors(dataset: Dataset) -> dict[str, str]:
    """Query -> what it is reported under."""
    return {query.name: query.group for query in dataset.queries}


def _submit(row: Row, queries: Sequence[str]) -> None:
    path = row.folder / f"InLoc_eval_[{row.name}].txt"
    write_submission(path, read_poses(row.poses))
    problems = check_submission(path, queries)
    if problems:
        raise ReconstructionError(f"{path}: not a valid submission: {'; '.join(problems[:5])}")


def rows_table(metrics: Mapping[str, LocalizationMetrics]) -> list[list[str]]:
    """For people, the head first: a line a row."""
    shares = list(next(iter(metrics.values())).within_percent)
    table = [["row", "localized", *shares, "median m", "median deg"]]
    for name, m in metrics.items():
        medians = (m.position_median, m.rotation_median_deg)
        texts = ["failed" if value is None else f"{value:.3g}" for value in medians]
        percent = [f"{share:.1f}" for share in m.within_percent.values()]
        table.append([name, f"{m.localized} of {m.queries}", *percent, *texts])
    return table
