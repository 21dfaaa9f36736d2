"""The order of the stages: which ones a pipeline file asks for, each knowing those before it."""

from __future__ import annotations

from collections.abc import Iterator

from reconstruct.benchmark.comparison import BenchmarkConfig, build_benchmark
from reconstruct.config import validate
from reconstruct.indoor.comparison import IndoorConfig, build_indoor
from reconstruct.indoor.rgbd_map import RgbdMap
from reconstruct.localization.evaluate import EvaluateQueries
from reconstruct.localization.localize import Localize, WritePoses
from reconstruct.localization.table import CompareFeatures, LocalizationTable, TableRow
from reconstruct.pipeline.config import AnyConfig, PipelineConfig
from reconstruct.stages import Context, Stage, inner_context
from reconstruct.stages.align import Align
from reconstruct.stages.database import Database
from reconstruct.stages.disambiguate import Disambiguate
from reconstruct.stages.evaluate import Evaluate, EvaluateConfig
from reconstruct.stages.extract import Extract
from reconstruct.stages.global_ import Global
from reconstruct.stages.keyed import KeyedStage
from reconstruct.stages.map import Map
from reconstruct.stages.match import Match
from reconstruct.stages.pair import Pair
from reconstruct.stages.refine import Refine, VerifyRefined
from reconstruct.stages.turn import Turn
from reconstruct.stages.verify import Verified, Verify, VerifyConfig
from reconstruct.stages.whole import WholeStage
from reconstruct.training import build_matcher_training, build_training
from reconstruct.training.matcher_settings import MatcherTrainingConfig
from reconstruct.training.settings import TrainingConfig
from reconstruct.workspace import Workspace


def build_stages(config: AnyConfig, context: Context) -> list[Stage]:
    """The stages that the configuration names, each knowing those before it."""
    if isinstance(config, BenchmarkConfig):
        return build_benchmark(context, config)
    if isinstance(config, IndoorConfig):
        return build_indoor(context, config)
    if isinstance(config, TrainingConfig):
        return build_training(context, config)
    if isinstance(config, MatcherTrainingConfig):
        return build_matcher_training(context, config)
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
        if config.disambiguate is not None:
            verified = Disambiguate(context, config.disambiguate, verify, verified)
            stages.append(verified)
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
        stages += _queries(context, localize, config.evaluate)
    elif config.evaluate is not None and isinstance(mapped, Map):
        stages.append(Evaluate(context, config.evaluate, mapped))
    return stages


def _queries(
    context: Context, localize: Localize, evaluate: EvaluateConfig | None
) -> Iterator[Stage]:
    """What is done with the photos to localize."""
    yield localize
    poses = WritePoses(context, localize)
    yield poses
    if evaluate is not None:
        yield EvaluateQueries(context, evaluate, poses)
