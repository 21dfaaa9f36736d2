"""What a pipeline file says: its sections, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import model_validator

from reconstruct.benchmark.comparison import BenchmarkConfig
from reconstruct.config import apply_overrides, read_yaml, validate
from reconstruct.datasets.loading import DatasetConfig
from reconstruct.indoor.comparison import IndoorConfig
from reconstruct.localization.pose import LocalizeConfig
from reconstruct.localization.table import LocalizationTable
from reconstruct.matching.config import MatchConfig
from reconstruct.refinement.settings import RefineConfig
from reconstruct.shipped import find_pipeline
from reconstruct.stages.disambiguate import DisambiguateConfig
from reconstruct.stages.evaluate import EvaluateConfig
from reconstruct.stages.extract_settings import ExtractConfig
from reconstruct.stages.map_settings import MapConfig
from reconstruct.stages.pair_settings import PairConfig
from reconstruct.stages.pipeline_file import PipelineFile
from reconstruct.stages.verify import VerifyConfig
from reconstruct.training.matcher_settings import MatcherTrainingConfig
from reconstruct.training.settings import TrainingConfig


class PipelineConfig(PipelineFile):
    """A pipeline file: sections in the order of the stages; a stage without its section is not
    run."""

    dataset: DatasetConfig
    extract: ExtractConfig
    pair: PairConfig | None = None
    match: MatchConfig | None = None
    verify: VerifyConfig | None = None
    refine: RefineConfig | None = None
    disambiguate: DisambiguateConfig | None = None
    map: MapConfig | None = None
    localize: LocalizeConfig | None = None
    evaluate: EvaluateConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _pair_frames(cls, data: Any) -> Any:
        """Frames of a video are paired in sequence, with loops, if the file has no section
        ``pair``."""
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
        if self.disambiguate is not None and (self.map is None or self.map.method == "triangulate"):
            raise ValueError("section `disambiguate` needs section `map` that looks for poses")
        if self.extract.orientation == "search" and self.verify is None:
            raise ValueError("`extract.orientation: search` needs section `verify`")
        return self


AnyConfig = (
    PipelineConfig
    | BenchmarkConfig
    | IndoorConfig
    | LocalizationTable
    | TrainingConfig
    | MatcherTrainingConfig
)

BY_SECTION: Mapping[str, type[AnyConfig]] = {
    "methods": BenchmarkConfig,
    "rows": IndoorConfig,
    "features": LocalizationTable,
    "train": TrainingConfig,
    "train_matcher": MatcherTrainingConfig,
}
"""Section that only one kind of pipeline file has -> that kind; all others are `PipelineConfig`."""


def load_config(path: Path | str, overrides: Mapping[str, Any] | None = None) -> AnyConfig:
    """A pipeline file, or one of the package by name, with ``overrides`` (dotted key -> value).

    A file with section ``methods`` is a benchmark of several extractors; one with ``rows`` compares
    ways of localization in an RGB-D map; one with ``features`` compares several extractors in a
    localization benchmark; one with ``train`` fine-tunes D2-Net, and one with ``train_matcher``
    trains a LightGlue.

    Raises ConfigError.
    """
    given, read = dict(overrides or {}), read_yaml(find_pipeline(path))
    data = apply_overrides(read, _validation_photos(read, given) | given)
    kinds = [kind for section, kind in BY_SECTION.items() if section in data]
    return validate(kinds[0] if kinds else PipelineConfig, data, str(path))


def _validation_photos(data: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Where a file names one folder for the photos to train on and to validate with, another one
    for the first counts for both."""
    photos = overrides.get("dataset.images")
    trained = _entry(data, "dataset", "images")
    if photos is None or trained is None:
        return {}
    same = _entry(data, "validation", "dataset", "images") == trained
    return {"validation.dataset.images": photos} if same else {}


def _entry(data: Any, *keys: str) -> Any:
    for key in keys:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def with_images(images: Path | str | None, overrides: Mapping[str, Any] | None) -> dict[str, Any]:
    """``overrides`` with the photos' folder, or the video's file, under its key; None: without."""
    if images is None:
        return dict(overrides or {})
    key = "dataset.path" if Path(images).is_file() else "dataset.images"  # a video, or photos
    return {key: str(images)} | dict(overrides or {})
