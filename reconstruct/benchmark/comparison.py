"""A benchmark: several methods on public data with ground truth, side by side.

A pipeline file with section ``methods`` is one (`BenchmarkConfig`). Its stages look at the ground
truth, run each method (`reconstruct.benchmark.method`), and compare:

    truth.json     what the ground truth is, and that it fits the images
    metrics.json   figures of all methods
    curves.svg     share of good matches over the threshold, where matplotlib is installed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Field, model_validator

from reconstruct.atomic import atomic_path
from reconstruct.benchmark.method import Method, MethodConfig, shared_extracts, write_json
from reconstruct.benchmark.protocols import Benchmark, summarise
from reconstruct.benchmark.protocols.daynight import DayNightBenchmark
from reconstruct.benchmark.protocols.hpatches import HPatchesBenchmark
from reconstruct.benchmark.protocols.tables import benchmark_tables
from reconstruct.benchmark.protocols.wxbs import WxBSBenchmark
from reconstruct.config import Section
from reconstruct.datasets.daynight import DayNightConfig, load_daynight
from reconstruct.datasets.hpatches import HPatchesConfig, load_hpatches
from reconstruct.datasets.wxbs import WxBSConfig, load_wxbs
from reconstruct.errors import DataError
from reconstruct.evaluation.plots import draw_curves
from reconstruct.fingerprints import fingerprint
from reconstruct.stages import Context, Stage
from reconstruct.stages.evaluate import read_metrics, write_metrics
from reconstruct.stages.pipeline_file import PipelineFile
from reconstruct.stages.whole import WholeStage

PANELS = 6
"""Most groups that curves are drawn of."""


class MagsacConfig(Section):
    """Section ``ransac``: of the geometry estimated from the matches, see `evaluation.robust`."""

    max_error_px: Annotated[float, Field(gt=0)] = 1.0
    """MAGSAC++'s threshold; the result hardly depends on it."""
    repeats: Annotated[int, Field(ge=1)] = 1
    """wxbs: matrices estimated for each pair, each from a seed of its own, over which scores are
    averaged: among few inliers a single one moves the table by several points."""


class BenchmarkConfig(PipelineFile):
    """A pipeline file of a benchmark."""

    dataset: Annotated[HPatchesConfig | WxBSConfig | DayNightConfig, Field(discriminator="format")]
    methods: tuple[MethodConfig, ...] = Field(min_length=1, strict=False)
    ransac: MagsacConfig = MagsacConfig()

    @model_validator(mode="after")
    def _check(self) -> BenchmarkConfig:
        labels = [method.label for method in self.methods]
        for label in labels:
            if labels.count(label) > 1 or label in (Truth.name, Compare.name):
                raise ValueError(f"methods: label {label!r} is taken; give each its own")
        if self.ransac.repeats > 1 and not isinstance(self.dataset, WxBSConfig):
            raise ValueError("ransac.repeats goes with `dataset.format: wxbs`, and only with it")
        return self


def load_benchmark(config: BenchmarkConfig) -> Benchmark:
    """Data and protocol. Raises UsageError for missing folders, DataError for unusable data."""
    if isinstance(config.dataset, DayNightConfig):
        return DayNightBenchmark(data=load_daynight(config.dataset))
    settings: dict[str, Any] = {"max_error_px": config.ransac.max_error_px, "seed": config.seed}
    if isinstance(config.dataset, HPatchesConfig):
        return HPatchesBenchmark(data=load_hpatches(config.dataset), **settings)
    repeats = config.ransac.repeats
    return WxBSBenchmark(data=load_wxbs(config.dataset), repeats=repeats, **settings)


def build_benchmark(context: Context, config: BenchmarkConfig) -> list[Stage]:
    """The stages in their order."""
    benchmark = load_benchmark(config)
    extracts = shared_extracts(context, config.methods)
    methods = [
        Method(context, method, benchmark, extract)
        for method, extract in zip(config.methods, extracts, strict=True)
    ]
    return [Truth(context, benchmark), *methods, Compare(context, benchmark, methods)]


class Truth(WholeStage):
    """Looks at images and ground truth before anything is measured with them."""

    name = "truth"

    def __init__(self, context: Context, benchmark: Benchmark) -> None:
        super().__init__(context, context.workspace.root / "truth.json")
        self.benchmark = benchmark

    def find_fingerprint(self) -> str:
        """Fingerprint over the ground truth."""
        return fingerprint("truth", self.benchmark.identity())

    def make(self) -> None:
        """Write truth.json. Raises DataError if the ground truth contradicts the images."""
        write_json(self.artifact, {**self.benchmark.describe(), **self.benchmark.check()})

    def figures(self) -> dict[str, Any]:
        """What the data are."""
        return self.benchmark.describe()


class Compare(WholeStage):
    """All methods side by side; those without scores are left out."""

    name = "compare"

    def __init__(self, context: Context, benchmark: Benchmark, methods: Sequence[Method]) -> None:
        super().__init__(context, context.workspace.metrics)
        self.benchmark = benchmark
        self.methods = methods

    def find_fingerprint(self) -> str:
        """Fingerprint over the scores of all methods."""
        scored = [[m.name, m.fingerprint(), bool(m.scores())] for m in self.methods]
        return fingerprint("comparison", scored)

    def make(self) -> None:
        """Write metrics.json. Raises DataError if no method could run."""
        benchmark = self.benchmark
        methods = {m.name: self._figures(m) for m in self.methods if m.scores()}
        left_out = self.context.summary.skipped
        if not methods and all(m.name in left_out for m in self.methods):
            reasons = "\n".join(left_out[m.name] for m in self.methods)
            raise DataError(f"none of the methods can run here:\n{reasons}")
        reported = {row.method: row.as_dict() for row in benchmark.reported}
        content = {"data": benchmark.describe(), "methods": methods, "reported": reported}
        write_metrics(self.workspace, {benchmark.name: content})

    def figures(self) -> dict[str, Any]:
        """Nothing but tables and curves, which go to the summary and curves.svg."""
        workspace, benchmark = self.workspace, self.benchmark
        methods = read_metrics(workspace)[benchmark.name]["methods"]
        summary = self.context.summary
        summary.tables |= benchmark_tables(benchmark, methods)
        drawing = draw_curves(
            {
                group: {name: row["groups"][group]["shares"] for name, row in methods.items()}
                for group in list(benchmark.groups)[:PANELS]
            },
            xlabel="threshold [px]",
            ylabel=benchmark.share,
        )
        if drawing is not None:
            summary.drawings[f"{benchmark.name}: {benchmark.share}"] = drawing
            with atomic_path(workspace.drawn_curves) as temporary:
                temporary.write_text(drawing, encoding="utf-8")
        return {}

    def _figures(self, method: Method) -> dict[str, Any]:
        scores, benchmark = method.scores(), self.benchmark
        thresholds = benchmark.thresholds_px, benchmark.auc_thresholds_px, benchmark.correct_px
        groups = {
            name: asdict(summarise(scores, pairs, *thresholds))
            for name, pairs in benchmark.groups.items()
        }
        return {"features": round(method.mean_features(), 1), "groups": groups}
