from __future__ import annotations

import functools
import json
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconstruct.benchmark.comparison import BenchmarkConfig
from reconstruct.config import NotIdentity, Section, parse_override
from reconstruct.errors import ConfigError
from reconstruct.indoor.comparison import IndoorConfig
from reconstruct.localization.table import LocalizationTable
from reconstruct.pipeline.config import PipelineConfig, load_config
from reconstruct.training.matcher_settings import MatcherTrainingConfig
from reconstruct.training.settings import TrainingConfig

PIPELINES = Path(__file__).parents[1] / "pipelines"

OUTSIDE_OF_FINGERPRINTS = {
    "names, and where results go": {
        *("PipelineConfig.name", "PipelineConfig.output", "IndoorConfig.name"),
        *("IndoorConfig.output", "TrainingConfig.name", "TrainingConfig.output"),
        *("LocalizationTable.name", "LocalizationTable.output"),
        *("MatcherTrainingConfig.name", "MatcherTrainingConfig.output"),
        *("BenchmarkConfig.name", "BenchmarkConfig.output"),
    },
    "paths of what counts by its content": {
        *("FolderConfig.images", "FolderConfig.masks", "NetVladConfig.path"),
        *("ListConfig.path", "QueryList.path", "PosesConfig.reference"),
        *("CovisibilityConfig.reference", "MapConfig.reference", "EvaluateConfig.reference"),
        "MapConfig.start",
        *("IndoorEvaluation.reference", "HomographiesConfig.images", "RgbdConfig.images"),
        *("SparsePointsConfig.images", "SparsePointsConfig.model", "ColmapDepthConfig.images"),
        *("MegaDepthConfig.images", "MegaDepthConfig.scene_info", "MixConfig.images"),
        *("FixedViewsConfig.images", "GpsConfig.positions"),
        *("UprightConfig.gravity", "LocalizeConfig.rigs"),
        *("FolderConfig.rigs", "VideoConfig.path", "PanoramaConfig.images", "PanoramaConfig.masks"),
    },
    "what its parts are given, which count": {
        *("TogetherConfig.max_edge", "TogetherConfig.max_keypoints"),
        *("TogetherConfig.multiscale", "TogetherConfig.levels", "TogetherConfig.weights"),
        *("TogetherConfig.tiles", "TogetherConfig.fp16"),
    },
    "where weights, which count by content, are looked for": {
        *("D2NetConfig.mirrors", "D2NetConfig.cache_dir"),
    },
    "which photos are taken, each of them counting by its content": {
        "ExtractConfig.max_megapixels"
    },
    "speed and memory": {
        *("D2NetConfig.backend", "ExtractConfig.loaders", "ExtractConfig.batch_size"),
        *(
            "MutualNNConfig.cache_mb",
            "DenseMatcherConfig.cache_mb",
            "LightGlueConfig.cache_mb",
            "DirectConfig.cache_mb",
            "RefineConfig.chunk",
        ),
        *("RefineConfig.cache_mb", "SecondPassConfig.chunk", "SecondPassConfig.cache_mb"),
        *(
            "RefineQueryConfig.chunk",
            "RefineQueryConfig.cache_mb",
            "DisambiguateConfig.threads",
            "MapConfig.threads",
        ),
        "MapConfig.snapshot_images",
        "TrainConfig.workers",
    },
    "where the work is done": {
        *("PipelineConfig.cluster", "BenchmarkConfig.cluster"),
        *("IndoorConfig.cluster", "TrainingConfig.cluster", "LocalizationTable.cluster"),
        "MatcherTrainingConfig.cluster",
    },
    "the same curves once more": {"TrainConfig.tensorboard", "TrainMatcherConfig.tensorboard"},
}
"""Reason -> SECTION.FIELD."""

MISTAKES = [
    # what is set, and all that the message must hold
    ({"mach": {}}, ["mach: unknown key (did you mean 'match'?)"]),
    ({"match.ration": 0.9}, ["match.ration: unknown key (did you mean 'ratio'?)", "cache_mb"]),
    (
        {"extract.local.max_edeg": 900},
        ["extract.local.max_edeg: unknown key (did you mean 'max_edge'?)"],
    ),
    (
        {"pair": {"method": "sequential", "overlapp": 3}},
        ["pair.overlapp: unknown key (did you mean 'overlap'?)"],
    ),
    ({"pair.method": "exhaustif"}, ["pair.method: unknown name 'exhaustif'", "'exhaustive'"]),
    ({"dataset.format": "foldr"}, ["dataset.format: unknown name 'foldr'", "'folder'"]),
    ({"extract.local.name": "sfit"}, ["extract.local.name: unknown name 'sfit'", "'sift'"]),
    ({"extract.local": {}}, ["extract.local.name: required, but absent; valid:", "d2net"]),
    (
        {"extract.local": {"name": "d2net", "weights": "vgg61"}},
        ["extract.local.weights: unknown weights 'vgg61' (did you mean 'vgg16'?)"],
    ),
    ({"extract.global": {"name": "gemm"}}, ["extract.global.name: unknown name 'gemm'"]),
    ({"extract.global": {}}, ["extract.global.name: required, but absent; valid:"]),
    ({"dataset.cameras": 3}, ["dataset.cameras: expected a valid string, got 3"]),
    (
        {"dataset.cameras": {"model": "PINHOLE", "parms": [1]}},
        ["dataset.cameras.parms: unknown key (did you mean 'params'?)", "cameras.params: required"],
    ),
    (
        {"dataset.cameras": {"model": "PINHLE", "params": [1, 2, 3, 4]}},
        ["dataset.cameras.model: unknown model 'PINHLE' (did you mean 'PINHOLE'?)"],
    ),
    (
        {"dataset.cameras": {"model": "PINHOLE", "params": [1, 2, 3]}},
        ["dataset.cameras: camera model PINHOLE takes", "fx, fy, cx, cy"],
    ),
    ({"dataset.camera_model": "FUNNY"}, ["dataset.camera_model: unknown model 'FUNNY'"]),
    ({"match.ratio": "0.9"}, ["match.ratio: expected a valid number, got '0.9'"]),
    ({"match.ratio": 1.5}, ["match.ratio: expected less than 1, got 1.5"]),
    ({"verify.min_inliers": 2.5}, ["verify.min_inliers: expected a valid integer, got 2.5"]),
    ({"extract": 3}, ["extract: expected a section", "got 3"]),
    (
        {"map.method": "incrmental"},
        ["map.method: expected 'auto', 'incremental'", "got 'incrmental'"],
    ),
    ({"map.reference": "model"}, ["map: `reference` goes with `method: triangulate`"]),
    ({"pair": None}, ["section `match` needs section `pair` before it"]),
]


@pytest.mark.parametrize(("changes", "parts"), MISTAKES, ids=[str(c) for c, _ in MISTAKES])
def test_a_mistake_names_file_place_and_remedy(
    chain: Path, changes: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(chain, changes)
    message = str(caught.value)
    assert all(line.startswith(f"{chain}: ") for line in message.splitlines())
    for part in parts:
        assert part in message
    for internal in ("CameraSpec", "Config", "function-", "valid dictionary"):
        assert internal not in message, "the file has no such level"


def test_a_union_member_does_not_hide_mistakes_elsewhere(chain: Path) -> None:
    changes = {"extract.loaders": "two", "extract.local.max_edge": "big", "match.cache_mb": "lots"}
    with pytest.raises(ConfigError) as caught:
        load_config(chain, changes)
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == [
        "extract.local.max_edge",
        "extract.loaders",
        "match.cache_mb",
    ]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (None, "no such pipeline file"),
        ("name: [", "not valid YAML"),
        ("match: {}\nname: x\nmatch: {}\n", "the key 'match' stands twice"),
        ("match: {ratio: 0.8, ratio: 0.9}", "the key 'ratio' stands twice"),
        ("- a\n- b\n", "expected sections"),
        ("", "expected sections"),
        (b"name: \xff\xfe", "not UTF-8"),
    ],
)
def test_an_unusable_file_is_named(tmp_path: Path, text: str | bytes | None, part: str) -> None:
    path = tmp_path / "bad.yaml"
    if text is not None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError, match=part) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


def test_overrides_are_typed_nested_and_leave_the_rest(chain: Path) -> None:
    texts = ["match.min_score=0.5", "verify.min_inliers=20", "pair={method: list, path: p q.txt}"]
    config = load_config(chain, dict(map(parse_override, texts)))
    assert isinstance(config, PipelineConfig)
    assert config.match is not None
    assert (config.match.min_score, config.match.ratio) == (0.5, 0.9)
    assert config.verify is not None
    assert config.verify.min_inliers == 20
    assert config.pair is not None
    assert config.pair.path == "p q.txt"


@pytest.mark.parametrize("text", ["match.ratio", "=3", "match.ratio=[", ""])
def test_an_override_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        parse_override(text)


def test_an_override_through_a_value_is_an_error(chain: Path) -> None:
    with pytest.raises(ConfigError, match=r"match\.ratio is 0\.9, not a section"):
        load_config(chain, {"match.ratio.x": 1})


def test_cameras_take_a_folder_or_one_camera(chain: Path) -> None:
    folder = load_config(chain, {"dataset.cameras": "some/model"})
    assert folder.dataset.cameras == "some/model"
    spec = {"model": "SIMPLE_RADIAL", "params": [500, 160, 120, 0]}
    assert load_config(chain, {"dataset.cameras": spec}).dataset.cameras.params[0] == 500


@pytest.mark.parametrize("path", sorted(PIPELINES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_pipeline_loads(path: Path) -> None:
    assert load_config(path).name == yaml.safe_load(path.read_text(encoding="utf-8"))["name"]


@pytest.mark.parametrize(
    "name", ["train_daynight", "train_matcher", "train_megadepth", "train_mix"]
)
def test_one_folder_holds_what_is_trained_on_and_validated_with(name: str) -> None:
    config = load_config(name, {"dataset.images": "mine"})
    assert (config.dataset.images, config.validation.dataset.images) == ("mine", "mine")
    both = {"dataset.images": "mine", "validation.dataset.images": "other"}
    assert load_config(name, both).validation.dataset.images == "other"


def test_photos_of_their_own_to_validate_with_stay(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    other = {"dataset": {"format": "homographies", "images": "other"}}
    data = {"name": "x", "dataset": {"format": "homographies", "images": "a"}, "train": {}}
    file.write_text(yaml.safe_dump(data | {"validation": other}), encoding="utf-8")
    assert load_config(file, {"dataset.images": "b"}).validation.dataset.images == "other"
    file.write_text(yaml.safe_dump(data), encoding="utf-8")
    assert load_config(file, {"dataset.images": "b"}).validation.dataset is None


ROOTS: tuple[type[Section], ...] = (
    PipelineConfig,
    BenchmarkConfig,
    IndoorConfig,
    LocalizationTable,
    TrainingConfig,
    MatcherTrainingConfig,
)


@dataclass(frozen=True)
class Step:
    """A field on the way from a pipeline file to a setting; many: it holds several sections."""

    section: type[Section]
    name: str
    many: bool

    @property
    def outside(self) -> bool:
        return NotIdentity in self.section.model_fields[self.name].metadata

    def hold(self, value: Any) -> Section:
        """The section with this value in the field, and None in the others."""
        others = {field: None for field in self.section.model_fields if field != self.name}
        held = (value,) if self.many else value
        return self.section.model_construct(**others, **{self.name: held})


def members(annotation: Any) -> list[type[Section]]:
    """The sections that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [member for part in typing.get_args(annotation) for member in members(part)]


def holds_many(annotation: Any) -> bool:
    return typing.get_origin(annotation) is tuple or any(
        holds_many(part) for part in typing.get_args(annotation)
    )


def walk(section: type[Section], before: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
    """The way to every setting of a section, with that of sections in it."""
    for name, field in section.model_fields.items():
        inner = members(field.annotation)
        step = Step(section, name, bool(inner) and holds_many(field.annotation))
        yield (*before, step)
        for member in inner:
            yield from walk(member, (*before, step))


WAYS = {
    ".".join([way[0].section.__name__, *(f"{s.name}" for s in way)])
    + f" ({way[-1].section.__name__})": way
    for root in ROOTS
    for way in walk(root)
}


def test_the_walk_sees_every_kind_of_file_and_every_member_of_unions() -> None:
    found = {way[-1].section.__name__ for way in WAYS.values()}
    assert {"D2NetConfig", "SiftConfig", "ListConfig", "CameraSpec", "SyntheticConfig"} <= found
    assert {"TrainConfig", "PhotometricConfig", "MegaDepthConfig", "MixConfig"} <= found
    assert {"MethodConfig", "RowConfig", "VerificationConfig"} <= found


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_setting_is_part_of_the_identity(way: tuple[Step, ...]) -> None:
    first, second = (
        functools.reduce(lambda value, step: step.hold(value), reversed(way), value).identity()
        for value in ("a", "b")
    )
    assert (first == second) == any(step.outside for step in way)
    json.dumps(first)


def test_what_is_left_out_of_fingerprints_has_a_reason() -> None:
    outside = {f"{s.section.__name__}.{s.name}" for way in WAYS.values() for s in way if s.outside}
    assert outside == set().union(*OUTSIDE_OF_FINGERPRINTS.values())
