"""The order of the stages: what a pipeline file says, what would run and why, and the run.

The executor at the end takes any list of stages; only `build_stages` knows which there are.
"""

from __future__ import annotations

import logging
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, model_validator

from reconstruct import colmap
from reconstruct.benchmark.comparison import BenchmarkConfig, build_benchmark, load_benchmark
from reconstruct.cluster import ClusterConfig, open_executor, parse_cluster
from reconstruct.config import NotIdentity, Section, apply_overrides, read_yaml, validate
from reconstruct.datasets import Dataset
from reconstruct.datasets.loading import DatasetConfig, load_dataset
from reconstruct.errors import ConfigError, UsageError, suggestion
from reconstruct.executor import Executor, InProcess
from reconstruct.indoor.comparison import IndoorConfig, build_indoor
from reconstruct.indoor.rgbd_map import RgbdMap
from reconstruct.localization.evaluate import EvaluateQueries
from reconstruct.localization.localize import Localize, WritePoses
from reconstruct.localization.pose import LocalizeConfig
from reconstruct.localization.table import CompareFeatures, LocalizationTable, TableRow
from reconstruct.matching.config import MatchConfig
from reconstruct.memory import peak_mb, restart_peak
from reconstruct.progress import Reporter, logging_to
from reconstruct.refinement.settings import RefineConfig
from reconstruct.report.page import shown_fingerprint, write_report
from reconstruct.shipped import find_pipeline
from reconstruct.stages import Context, Plan, Stage, Summary, inner_context
from reconstruct.stages.align import Align
from reconstruct.stages.database import Database
from reconstruct.stages.evaluate import Evaluate, EvaluateConfig
from reconstruct.stages.extract import Extract
from reconstruct.stages.extract_settings import ExtractConfig
from reconstruct.stages.global_ import Global
from reconstruct.stages.keyed import KeyedStage
from reconstruct.stages.map import Map, MapConfig
from reconstruct.stages.match import Match
from reconstruct.stages.outcome import Run
from reconstruct.stages.pair import Pair, PairConfig
from reconstruct.stages.refine import Refine, VerifyRefined
from reconstruct.stages.turn import Turn
from reconstruct.stages.verify import Verified, Verify, VerifyConfig
from reconstruct.stages.whole import WholeStage
from reconstruct.storage.summary import read_summary, stage_entry, write_summary
from reconstruct.torch_device import resolve_device
from reconstruct.training import build_training
from reconstruct.training.settings import TrainingConfig
from reconstruct.workspace import TEMPORARY, Workspace, atomic_path, fingerprint, remove

logger = logging.getLogger("reconstruct")


class PipelineConfig(Section):
    """A pipeline file: sections in the order of the flow; a missing one is a stage not run."""

    name: Annotated[str, NotIdentity]
    """Names the run; the output folder is output/NAME where --output is not given."""
    output: Annotated[str | None, NotIdentity] = None
    """Output folder."""
    seed: int = Field(0, ge=0)
    """Seed of every random choice."""
    cluster: Annotated[ClusterConfig | None, NotIdentity] = None
    """Where the work is done; null: in this process."""
    dataset: DatasetConfig
    extract: ExtractConfig
    pair: PairConfig | None = None
    match: MatchConfig | None = None
    verify: VerifyConfig | None = None
    refine: RefineConfig | None = None
    map: MapConfig | None = None
    localize: LocalizeConfig | None = None
    evaluate: EvaluateConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _pair_frames(cls, data: Any) -> Any:
        """Frames of a video are paired in their order, with loops, where the file says nothing."""
        if not isinstance(data, dict) or "match" not in data or "pair" in data:
            return data
        dataset = data.get("dataset")
        video = isinstance(dataset, dict) and dataset.get("format") == "video"
        pair = {"method": "sequential", "overlap": 10, "loop_every": 10}
        return data | {"pair": pair} if video else data

    @model_validator(mode="after")
    def _check_flow(self) -> PipelineConfig:
        given = self.localize is not None and self.dataset.has_points
        flow = ["pair", "match", *([] if given else ["verify", "map"]), "evaluate"]
        if given and (self.match is None or self.verify or self.refine or self.map):
            raise ValueError(
                "section `localize` with RGB-D images needs sections `pair` and `match`, but no "
                "`verify`, `refine` or `map`: the map is given"
            )
        present = [name for name in flow if getattr(self, name) is not None]
        for name, expected in zip(present, flow, strict=False):
            if name != expected:
                raise ValueError(f"section `{name}` needs section `{expected}` before it")
        if self.localize is not None and self.map is None and not given:
            raise ValueError("section `localize` needs section `map` before it")
        if self.refine is not None and self.verify is None:
            raise ValueError("section `refine` needs section `verify` before it")
        if self.extract.orientation == "search" and self.verify is None:
            raise ValueError("`extract.orientation: search` needs section `verify`")
        return self


AnyConfig = PipelineConfig | BenchmarkConfig | IndoorConfig | LocalizationTable | TrainingConfig

BY_SECTION: Mapping[str, type[AnyConfig]] = {
    "methods": BenchmarkConfig,
    "rows": IndoorConfig,
    "features": LocalizationTable,
    "train": TrainingConfig,
}
"""The section that only one kind of pipeline file has -> that kind; others are `PipelineConfig`."""


def load_config(path: Path | str, overrides: Mapping[str, Any] | None = None) -> AnyConfig:
    """A pipeline file, or one of the package by name, with ``overrides`` (dotted key -> value).

    Raises ConfigError.

    One with section ``methods`` is a benchmark of several extractors, one with ``rows`` compares
    ways of localization in an RGB-D map, one with ``features`` several extractors in a localization
    benchmark, one with ``train`` trains.
    """
    data = apply_overrides(read_yaml(find_pipeline(path)), overrides or {})
    kinds = [kind for section, kind in BY_SECTION.items() if section in data]
    return validate(kinds[0] if kinds else PipelineConfig, data, str(path))


def build_stages(config: AnyConfig, context: Context) -> list[Stage]:
    """The stages that the configuration names, each knowing those before it."""
    if isinstance(config, BenchmarkConfig):
        return build_benchmark(context, config)
    if isinstance(config, IndoorConfig):
        return build_indoor(context, config)
    if isinstance(config, TrainingConfig):
        return build_training(context, config)
    if isinstance(config, LocalizationTable):
        return build_table(context, config)
    return build_chain(context, config)


def build_table(context: Context, config: LocalizationTable) -> list[Stage]:
    """A row for each extractor, which is a chain in a folder of its own, and their comparison."""
    rows = []
    for row in config.features:
        own = validate(PipelineConfig, config.sections(row), f"features: {row.label}")
        inner = inner_context(context, Workspace(context.workspace.root / "rows" / row.label))
        rows.append(TableRow(context, inner, row.label, build_chain(inner, own)))
    return [*rows, CompareFeatures(context, rows)]


def build_chain(context: Context, config: PipelineConfig) -> list[Stage]:
    """The chain of structure from motion, as far as the file goes, and localization after it."""
    extract = Extract(context, config.extract)
    stages: list[Stage] = [extract]
    described = None
    if config.extract.global_ is not None:
        described = Global(context, config.extract.global_, extract)
        stages.append(described)
    if config.pair is None:
        return stages
    pair = Pair(context, config.pair, extract, described)
    stages.append(pair)
    if config.match is None:
        return stages
    match = Match(context, config.match, extract, pair)
    stages.append(match)
    mapped: Map | RgbdMap | None = None
    if config.verify is not None:
        verify = Verify(context, config.verify, config.dataset, extract, match)
        stages.append(verify)
        if config.extract.orientation == "search":
            upstream: list[KeyedStage | WholeStage] = [extract, pair, match, verify]
            if described is not None:
                upstream.insert(1, described)
            stages.append(Turn(context, extract, match, verify, again=upstream))
        verified: Verified = verify
        if config.refine is not None:
            align = Align(context, config.refine, verify)
            refine = Refine(context, config.refine, verify, align)
            verified = VerifyRefined(context, verify, refine)
            stages += [align, refine, verified]
        database = Database(context, verify, verified)
        stages.append(database)
        if config.map is not None:
            mapped = Map(context, config.map, database)
            stages.append(mapped)
    elif config.localize is not None:  # the data set's own RGB-D images are the map
        mapped = RgbdMap(context, config.dataset)
    if config.localize is not None and mapped is not None:
        localize = Localize(
            context,
            config.localize,
            extract=extract,
            pair=pair,
            match=match,
            mapped=mapped,
            camera_config=config.dataset,
            verify=config.verify or VerifyConfig(),
        )
        poses = WritePoses(context, localize)
        stages += [localize, poses]
        if config.evaluate is not None:
            stages.append(EvaluateQueries(context, config.evaluate, poses))
    elif config.evaluate is not None and isinstance(mapped, Map):
        stages.append(Evaluate(context, config.evaluate, mapped))
    return stages


def open_context(
    config: AnyConfig,
    output: Path | str | None,
    device: str,
    reporter: Reporter,
    executor: Executor | None = None,
) -> Context:
    """What the stages share. Raises UsageError for a missing folder or device."""
    workspace = Workspace(output or config.output or Path("output") / config.name)
    resolve_device(device)
    if isinstance(config, BenchmarkConfig):
        dataset: Dataset = load_benchmark(config).dataset
    elif isinstance(config, TrainingConfig):
        # Drawn from, not gone through photo by photo.
        dataset = Dataset(root=Path(config.dataset.images), names=())
    else:
        dataset = load_dataset(config.dataset, workspace.dataset)
    if isinstance(config, PipelineConfig | LocalizationTable):
        if config.map is not None and config.map.reference is not None:
            poses = colmap.model_folder(Path(config.map.reference))
            # Its intrinsics belong to its poses; cameras given for the photos come first.
            dataset = replace(dataset, poses=poses, cameras=dataset.cameras or poses)
        if config.localize is not None and not dataset.queries:
            raise ConfigError("localize: needs dataset.queries, the photos to localize")
    summary = Summary(skipped=dict(dataset.skipped))
    return Context(
        workspace=workspace,
        dataset=dataset,
        reporter=reporter,
        summary=summary,
        device=device,
        seed=config.seed,
        executor=executor or InProcess(),
    )


def run(
    pipeline: Path | str,
    images: Path | str | None = None,
    output: Path | str | None = None,
    overrides: Mapping[str, Any] | None = None,
    device: str = "auto",
    only: Sequence[str] = (),
    force: Sequence[str] = (),
    verbosity: int = 0,
    cluster: str | None = None,
) -> Run:
    """Run a pipeline file; what is up to date in ``output`` is not done again.

    pipeline: path of a YAML file, or the name of one of the package, e.g. ``sfm``. images: replaces
    ``dataset.images``; a file: ``dataset.path``, the clip of pipeline ``video``. overrides: dotted
    key -> value, e.g. ``{"extract.local.multiscale": True}``.
    device: auto, cpu, cuda, cuda:N or mps.
    only: names of the stages to run. force: names of stages to run even if up to date.
    verbosity: -1 only errors, 0 progress, 1 also COLMAP's log. cluster: as ``--cluster``:
    ``local:4`` for worker processes, or the address of a Dask scheduler.

    Raises UsageError (wrong settings, missing folder, output folder in use) or DataError (the
    photos do not allow it); both name the next step.
    """
    where = {} if cluster is None else parse_cluster(cluster)
    where = {f"cluster.{key}": value for key, value in where.items()}
    config = load_config(pipeline, _with_images(images, overrides) | where)
    return run_config(config, output, device, only, force, verbosity)


def run_config(
    config: AnyConfig,
    output: Path | str | None = None,
    device: str = "auto",
    only: Sequence[str] = (),
    force: Sequence[str] = (),
    verbosity: int = 0,
) -> Run:
    """As `run`, for settings that have been read already."""
    reporter = Reporter(verbosity)
    colmap.set_verbosity(verbosity > 0)
    workspace = Workspace(output or config.output or Path("output") / config.name)
    with (
        workspace.lock(),
        logging_to(reporter, workspace.log),
        open_executor(config.cluster, workspace.root) as executor,
    ):
        context = open_context(config, workspace.root, device, reporter, executor)
        stages = build_stages(config, context)
        _check_names([*only, *force], stages)
        _write_run_file(workspace, config, device)
        for stage in stages:
            if isinstance(stage, Pair) and (advice := stage.advice()):
                logger.warning(advice)
            if stage.name in force:
                stage.discard()
        execute(stages, context, only)
        _update_report(config, context, made=any(stage.made for stage in stages))
        return Run(workspace.root, context.summary)


def plan(
    pipeline: Path | str,
    images: Path | str | None = None,
    output: Path | str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> list[tuple[str, Plan]]:
    """What `run` would do, stage by stage; changes nothing but the rendered demo data."""
    config = load_config(pipeline, _with_images(images, overrides))
    context = open_context(config, output, "cpu", Reporter(-1))
    plans: list[tuple[str, Plan]] = []
    for stage in build_stages(config, context):
        planned = stage.plan()
        waits = next((name for name, plan in plans if plan.state == "waiting"), None)
        pending = next((name for name, plan in plans if plan.state != "done"), None)
        if planned.state == "done" and pending is not None:
            planned = Plan("waiting", f"done again if {pending} brings anything new")
        elif waits is not None and isinstance(stage, WholeStage):
            planned = Plan("waiting", f"follows what {waits} brings")
        plans.append((stage.name, planned))
    return plans


def execute(stages: Sequence[Stage], context: Context, only: Sequence[str] = ()) -> None:
    """Run the stages in their order, those not in ``only`` (if any) taken as they are."""
    path, summary = context.workspace.summary, context.summary
    entries = read_summary(path)
    remove(path.with_name(path.name + TEMPORARY))  # left by a run that was killed as it wrote it
    for stage in stages:
        if only and stage.name not in only:
            stage.settle()
            continue
        restart_peak()
        started = time.monotonic()
        stage.run()
        seconds = time.monotonic() - started
        logger.info("%s: done in %.1f s", stage.name, seconds)
        if stage.made or stage.name not in entries:
            figures = summary.figures.get(stage.name, {})
            entries[stage.name] = stage_entry(seconds, figures, peak_mb())
            if isinstance(stage, Turn):  # those before it may have run again
                for before in stage.again:
                    if before.made:
                        entries[before.name]["figures"] = summary.figures[before.name]
            write_summary(path, entries, summary.skipped)
    for stage in stages:
        entry = entries.get(stage.name, {})
        for key, told in (("seconds", summary.seconds), ("memory_mb", summary.memory_mb)):
            if key in entry:
                told[stage.name] = entry[key]


def _update_report(config: AnyConfig, context: Context, made: bool) -> None:
    """Write report.html, unless nothing was made and the page stands for the same.

    A run that was killed before its page was drawn has left other entries in summary.json.
    """
    workspace, summary = context.workspace, context.summary
    settings = config.model_dump(mode="json", by_alias=True)
    version = metadata.version("reconstruct") if _installed("reconstruct") else None
    entries = read_summary(workspace.summary)
    wanted = fingerprint("report", version, settings, summary.skipped, entries)
    if not made and shown_fingerprint(workspace) == wanted:
        return
    try:
        write_report(workspace, summary, config, context.dataset, wanted)
    except OSError as error:
        logger.warning("report.html could not be written; all else is there (%s)", error)
    except Exception:  # a page that cannot be drawn is no reason to lose what was computed
        logger.exception("report.html could not be written; all else is there")
    workspace.renew_stamp(workspace.database)  # COLMAP's library, which reads it, marks it


def _with_images(images: Path | str | None, overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    if images is None:
        return dict(overrides or {})
    key = "dataset.path" if Path(images).is_file() else "dataset.images"  # a video, or photos
    return {key: str(images)} | dict(overrides or {})


def _check_names(names: Sequence[str], stages: Sequence[Stage]) -> None:
    valid = [stage.name for stage in stages]
    for name in names:
        if name not in valid:
            raise UsageError(f"no stage {name!r} in this pipeline{suggestion(name, valid)}")


def _write_run_file(workspace: Workspace, config: AnyConfig, device: str) -> None:
    packages = ("reconstruct", "torch", "pycolmap", "numpy", "opencv-python-headless", "h5py")
    versions = {"python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in packages if _installed(name)}
    content = {
        "config": config.model_dump(mode="json", by_alias=True),
        "device": str(resolve_device(device)),
        "versions": versions,
        "command": " ".join(sys.argv),
    }
    with atomic_path(workspace.config) as temporary:
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        temporary.write_text(text, encoding="utf-8")


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


__all__ = ["ConfigError", "PipelineConfig", "Run", "load_config", "plan", "run"]
