"""Localization in RGB-D maps, several ways side by side: a pipeline file with section ``rows``.

extractors/NAME-HASH/features/      rows with equal extractor settings share them
matched/HASH/matches/               and those with equal matcher settings these
poses/METHOD-HASH/candidates/       candidate poses, and scores-HASH/ of Dense PV
rows/LABEL/poses.txt                the best candidate of each query; with a name for it, the
                                    server's file beside it
metrics.json                        where the truth is known: of all rows, for each floor
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from reconstruct.config import NotIdentity, Section
from reconstruct.datasets.depth_folder import DepthFolderConfig
from reconstruct.datasets.inloc import InLocConfig
from reconstruct.errors import EstimationError
from reconstruct.evaluation.localization import (
    Threshold,
    grouped_metrics,
    query_errors,
)
from reconstruct.evaluation.plots import draw_curves
from reconstruct.evaluation.submission import check_submission, write_submission
from reconstruct.fingerprints import fingerprint
from reconstruct.indoor.candidates import Candidates
from reconstruct.indoor.dense_verification import VerificationConfig
from reconstruct.indoor.retrieval import Retrieval, RetrievalSection, RetrievedPairs
from reconstruct.indoor.rgbd_map import RgbdMap
from reconstruct.indoor.row import CandidateSource, Row, RowConfig
from reconstruct.indoor.verify_poses import VerifyPoses
from reconstruct.indoor.ways import DenseCandidatesConfig, DirectConfig, PoseConfig, SparseConfig
from reconstruct.localization.evaluate import read_truth, rows_table
from reconstruct.stages import Context, QueryCard, Stage, inner_context
from reconstruct.stages.compact import CompactConfig
from reconstruct.stages.evaluate import write_metrics
from reconstruct.stages.extract import Extract
from reconstruct.stages.extract_settings import ExtractConfig
from reconstruct.stages.match import Match
from reconstruct.stages.pipeline_file import PipelineFile
from reconstruct.stages.side_by_side import SideBySide
from reconstruct.storage.poses import read_poses
from reconstruct.workspace import Workspace

INLOC_THRESHOLDS: tuple[Threshold, ...] = ((0.25, 10.0), (0.5, 10.0), (1.0, 10.0))
"""Of visuallocalization.net for InLoc."""

STEPS = 40
"""Of the curves of queries by the error of their pose."""
CARDS = 6
"""Queries that the report shows beside an image of the map."""


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


class IndoorConfig(PipelineFile):
    """A pipeline file with section ``rows``."""

    dataset: Annotated[InLocConfig | DepthFolderConfig, Field(discriminator="format")]
    retrieval: RetrievalSection
    rows: tuple[RowConfig, ...] = Field(strict=False)
    evaluate: IndoorEvaluation = IndoorEvaluation.model_validate({})

    @model_validator(mode="after")
    def _check_labels(self) -> IndoorConfig:
        if not self.rows:
            raise ValueError("rows: expected one entry or several, got none")
        labels = [row.label for row in self.rows]
        for label in labels:
            if labels.count(label) > 1 or label in (Retrieval.name, CompareRows.name):
                raise ValueError(f"rows: label {label!r} is taken; give each its own")
        return self


def build_indoor(context: Context, config: IndoorConfig) -> list[Stage]:
    """The stages: retrieval, the rows, and their comparison."""
    parts = SharedParts(context, config)
    rows = [
        Row(context, row, [parts.source(way, row.verification) for way in row.poses])
        for row in config.rows
    ]
    return [parts.retrieval, *rows, CompareRows(context, config.evaluate, rows)]


class SharedParts:
    """Makes each stage behind the rows once, however many rows ask for it."""

    def __init__(self, context: Context, config: IndoorConfig) -> None:
        self.context, self.config = context, config
        self.scans = RgbdMap(context, config.dataset)
        self._extracts: dict[str, Extract] = {}
        self._matches: dict[str, Match] = {}
        self._candidates: dict[str, Candidates] = {}
        self._scores: dict[Path, VerifyPoses] = {}
        extract = self._extract(config.retrieval.local, CompactConfig(), config.retrieval.global_)
        self.retrieval = Retrieval(context, config.retrieval, extract)

    def source(self, way: PoseConfig, verification: VerificationConfig | None) -> CandidateSource:
        """The stages of one way to candidate poses, with Dense PV where it is asked for."""
        extract = self._extract(way.local, way.compact)
        match = None if isinstance(way, DirectConfig) else self._match(way, extract)
        candidates = self._candidates_of(way, extract, match)
        scores = None if verification is None else self._scores_of(candidates, verification)
        return CandidateSource(extract, match, candidates, scores)

    def _candidates_of(self, way: PoseConfig, extract: Extract, match: Match | None) -> Candidates:
        folder = f"{way.method}-{_hash(way)}"
        if folder not in self._candidates:
            context = self._inner("poses", folder)
            self._candidates[folder] = Candidates(
                context, way, extract, match, self.scans, self.config.dataset
            )
        return self._candidates[folder]

    def _scores_of(self, candidates: Candidates, config: VerificationConfig) -> VerifyPoses:
        stage = VerifyPoses(candidates.context, config, candidates, self.scans)
        return self._scores.setdefault(stage.store.folder, stage)

    def _extract(
        self, local: Section, compact: CompactConfig, described: Section | None = None
    ) -> Extract:
        folder = f"{local.identity()['name']}-{_hash(local, compact)}"
        if folder not in self._extracts:
            settings = {"local": local, "compact": compact, "global": described}
            config = ExtractConfig.model_validate(settings)
            self._extracts[folder] = Extract(self._inner("extractors", folder), config)
        return self._extracts[folder]

    def _match(self, way: SparseConfig | DenseCandidatesConfig, extract: Extract) -> Match:
        folder = (
            f"{way.local.identity()['name']}-{_hash(way.local, way.compact, way.match)}-matched"
        )
        if folder not in self._matches:
            context = self._inner("matched", folder)
            pairs = RetrievedPairs(self.retrieval, extract)
            self._matches[folder] = Match(context, way.match, extract, pairs)
        return self._matches[folder]

    def _inner(self, *folders: str) -> Context:
        root = self.context.workspace.root.joinpath(*folders)
        return inner_context(self.context, Workspace(root))


def _hash(*sections: Section) -> str:
    return fingerprint("part", [section.identity() for section in sections])[:8]


class CompareRows(SideBySide):
    """The stage."""

    name = "compare"

    def __init__(self, context: Context, config: IndoorEvaluation, rows: Sequence[Row]) -> None:
        super().__init__(context)
        self.config = config
        self.rows = rows
        given = Path(config.reference) if config.reference else None
        self.reference = given or context.dataset.reference

    def run(self) -> None:
        """Write submissions, metrics.json, and the tables of the summary."""
        done = [row for row in self.rows if row.workspace.stamp(row.artifact) is not None]
        queries = [query.name for query in self.context.dataset.queries]
        if self.config.submission:
            for row in done:
                _submit(row, queries)
        if done:
            most = max(done, key=lambda row: len(read_poses(row.artifact)))
            self.context.summary.cards += query_cards(most, queries)
        if self.reference is None or not done:
            return
        groups = {query.name: query.group for query in self.context.dataset.queries}
        truth = {n: pose for n, pose in read_truth(self.reference).items() if n in groups}
        if not truth:
            raise EstimationError(f"{self.reference}: has no pose of any query (by name)")
        errors = {row.name: query_errors(read_poses(row.artifact), truth) for row in done}
        metrics = {
            name: grouped_metrics(found, groups, self.config.thresholds)
            for name, found in errors.items()
        }
        content = {
            name: {group: m.as_dict() for group, m in found.items()}
            for name, found in metrics.items()
        }
        write_metrics(self.context.workspace, {"rows": content})
        for group in next(iter(metrics.values())):
            table = rows_table({name: found[group] for name, found in metrics.items()})
            self.context.summary.tables[f"queries: {group}"] = table
        self.context.summary.drawings["queries by the error of their pose"] = draw_errors(
            errors, self.config.thresholds
        )


def draw_errors(
    errors: Mapping[str, Mapping[str, tuple[float, float]]], thresholds: Sequence[Threshold]
) -> str:
    """Share of queries over their position error, of each row, as SVG.

    errors: row -> query -> position error in metres and rotation error in degrees. A query whose
    rotation is off by more than the largest threshold counts as failed.
    """
    farthest, most_deg = (max(limit[i] for limit in thresholds) for i in (0, 1))
    curves = {}
    for row, found in errors.items():
        near = np.array([m if deg <= most_deg else np.inf for m, deg in found.values()])
        steps = np.linspace(0, farthest, STEPS + 1).tolist()
        curves[row] = {f"{x:.4g}": float((near <= x).mean()) for x in steps}
    return draw_curves(
        {f"rotation within {most_deg:g}°": curves},
        xlabel="position error [m]",
        ylabel="share of queries",
    )


def query_cards(row: Row, queries: Sequence[str]) -> list[QueryCard]:
    """Some queries of a row with the images of the map that their poses came from, those with
    fewest inliers first."""
    found = row.map_photos()
    ranked = sorted((name for name in queries if name in found), key=lambda name: found[name][1])
    places = np.linspace(0, len(ranked) - 1, min(CARDS, len(ranked))).round().astype(int)
    return [
        QueryCard(
            query=ranked[i],
            photo=found[ranked[i]][0],
            label=row.name,
            caption=f"{found[ranked[i]][1]:,} inliers",
        )
        for i in dict.fromkeys(places.tolist())
    ]


def _submit(row: Row, queries: Sequence[str]) -> None:
    path = row.folder / f"InLoc_eval_[{row.name}].txt"
    write_submission(path, read_poses(row.artifact))
    problems = check_submission(path, queries)
    if problems:
        raise EstimationError(f"{path}: not a valid submission: {'; '.join(problems[:5])}")
