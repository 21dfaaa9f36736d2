"""Several extractors in one localization benchmark: a pipeline file with section ``features``.

All rows share the data set, the pairs and, where a row does not say otherwise, the settings of
matching, verification, mapping and localization.

    rows/LABEL/     the whole run of a row: features, map, poses.txt, the server's file
    metrics.json    where the truth is known: of all rows
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from pydantic import Field, model_validator

from reconstruct.config import Section
from reconstruct.datasets.loading import DatasetConfig
from reconstruct.errors import MissingLibraryError, WeightsError
from reconstruct.evaluation.localization import LocalizationMetrics
from reconstruct.localization.evaluate import rows_table
from reconstruct.localization.pose import LocalizeConfig
from reconstruct.matching.config import MatchConfig, default_match
from reconstruct.refinement.settings import RefineConfig
from reconstruct.stages import Context, Plan, Stage
from reconstruct.stages.compact import CompactConfig
from reconstruct.stages.evaluate import EvaluateConfig, read_metrics, write_metrics
from reconstruct.stages.extract_settings import LocalConfig
from reconstruct.stages.map_settings import MapConfig
from reconstruct.stages.pair_settings import PairConfig
from reconstruct.stages.pipeline_file import PipelineFile
from reconstruct.stages.side_by_side import SideBySide
from reconstruct.stages.verify import VerifyConfig

logger = logging.getLogger("reconstruct")

COMPARE = "compare"
FIGURES = (("map", "points"), ("map", "mean_reprojection_error_px"), ("evaluate", "submission"))
"""What the summary tells of a row: stage and name."""


class FeatureRow(Section):
    """An entry of section ``features``."""

    label: str = Field(pattern=r"^\w[\w .,+-]*$")
    """Names the row in tables, files, and --only; unique."""
    local: LocalConfig
    """The extractor, as in ``extract.local`` of other pipelines."""
    compact: CompactConfig = CompactConfig.model_validate({})
    """How descriptors are stored, as in ``extract.compact``."""
    match: MatchConfig | None = None
    """Replaces the section ``match`` of the file; null: that section."""
    verify: VerifyConfig | None = None
    """Replaces the section ``verify`` of the file; null: that section."""
    refine: RefineConfig | None = None
    """Refine keypoints ({}: with the default settings)."""


class LocalizationTable(PipelineFile):
    """A pipeline file with section ``features``."""

    dataset: DatasetConfig
    pair: PairConfig
    match: MatchConfig = default_match()
    verify: VerifyConfig = VerifyConfig.model_validate({})
    map: MapConfig
    localize: LocalizeConfig
    evaluate: EvaluateConfig
    features: tuple[FeatureRow, ...] = Field(min_length=1, strict=False)

    @model_validator(mode="after")
    def _check_labels(self) -> LocalizationTable:
        labels = [row.label for row in self.features]
        for label in labels:
            if labels.count(label) > 1 or label == COMPARE:
                raise ValueError(f"features: label {label!r} is taken; give each its own")
        return self

    def sections(self, row: FeatureRow) -> dict[str, Any]:
        """The sections of the pipeline file that a row stands for."""
        submission = f"{self.name}_{row.label}".replace(" ", "_")
        return {
            "name": row.label,
            "seed": self.seed,
            "dataset": self.dataset,
            "extract": {"local": row.local, "compact": row.compact},
            "pair": self.pair,
            "match": row.match or self.match,
            "verify": row.verify or self.verify,
            "refine": row.refine,
            "map": self.map,
            "localize": self.localize,
            "evaluate": self.evaluate.model_copy(update={"submission": submission}),
        }


class TableRow:
    """The run of a row: its stages as one.

    A row whose weights or library are missing is left out with a warning; the table is made without
    it.
    """

    def __init__(
        self, outer: Context, context: Context, name: str, stages: Sequence[Stage]
    ) -> None:
        self.name = name
        self.outer, self.context = outer, context
        self.stages = tuple(stages)

    @property
    def made(self) -> int:
        """How much this run has made."""
        return sum(stage.made for stage in self.stages)

    def plan(self) -> Plan:
        """The first thing to do."""
        for stage in self.stages:
            try:
                plan = stage.plan()
            except (WeightsError, MissingLibraryError) as error:
                return Plan("missing", f"left out: {error}", 0, 0)
            if plan.todo or plan.state != "done":
                return Plan(plan.state, f"{stage.name}: {plan.why}", plan.todo, plan.total)
        return Plan("done", "up to date", 0)

    def current(self) -> bool:
        """Whether all its stages are."""
        return all(stage.current() for stage in self.stages)

    def run(self) -> None:
        """Bring all of it up to date."""
        logger.info("row %s", self.name)
        try:
            for stage in self.stages:
                stage.run()
        except (WeightsError, MissingLibraryError) as error:
            self.outer.summary.skipped[self.name] = str(error)
            logger.warning("%s is left out: %s", self.name, error)
            return
        told = self.context.summary.figures
        self.outer.summary.figures[self.name] = {
            name: told[stage][name] for stage, name in FIGURES if name in told.get(stage, {})
        }

    def fingerprint_of_all(self) -> str | None:
        """Fingerprint over what its last stage left, on which all before it tells."""
        left_out = self.name in self.outer.summary.skipped
        return None if left_out else self.stages[-1].fingerprint_of_all()

    def settle(self) -> None:
        """Take what is stored as it is."""
        for stage in self.stages:
            stage.settle()

    def discard(self) -> None:
        """Forget all that it made."""
        for stage in self.stages:
            stage.discard()

    def metrics(self) -> dict[str, LocalizationMetrics]:
        """Errors of its queries by group; empty without ground truth, or before it has run."""
        found = read_metrics(self.context.workspace).get("queries", {})
        return {group: LocalizationMetrics(**values) for group, values in found.items()}


class CompareFeatures(SideBySide):
    """The stage."""

    name = COMPARE

    def __init__(self, context: Context, rows: Sequence[TableRow]) -> None:
        super().__init__(context)
        self.rows = rows

    def run(self) -> None:
        """Write metrics.json and the tables of the summary."""
        left_out = self.context.summary.skipped
        found = {row.name: row.metrics() for row in self.rows if row.name not in left_out}
        found = {name: groups for name, groups in found.items() if groups}
        if not found:
            return
        content = {n: {g: m.as_dict() for g, m in groups.items()} for n, groups in found.items()}
        write_metrics(self.context.workspace, {"rows": content})
        for group in next(iter(found.values())):
            rows = {name: groups[group] for name, groups in found.items()}
            self.context.summary.tables[f"queries: {group}"] = rows_table(rows)
