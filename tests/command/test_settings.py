from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from reconstruct.command.listing import KIND_NAMES, as_text
from reconstruct.command.settings import all_settings, find_settings, json_schema
from reconstruct.config import read_yaml
from reconstruct.errors import UsageError
from reconstruct.pipeline.config import BY_SECTION
from reconstruct.shipped import find_pipeline, pipeline_names


def test_every_setting_has_a_sentence() -> None:
    settings = all_settings()
    assert not [setting.key for setting in settings if not setting.sentence]
    kinds = {"", "features", "methods", "rows", "train", "train_matcher"}
    assert {setting.kind for setting in settings} == kinds


def test_a_setting_is_told_with_type_default_and_sentence() -> None:
    (ratio,) = [s for s in find_settings("match.ratio") if not s.kind]
    assert (ratio.type, ratio.default) == ("number > 0 < 1 or null", "null")
    assert ratio.sentence.startswith("Keep a match only if its distance is below this times")
    weights = [s for s in find_settings("extract.local.weights") if not s.kind]
    assert [s.choice for s in weights][:1] == ["extract.local.name: d2net"]
    assert "match.ratio: number > 0 < 1 or null; default null" in as_text([ratio])
    assert {s.key for s in find_settings("evaluate")} >= {"evaluate", "evaluate.reference"}


def test_defaults_of_list_entries_and_aliases_are_those_of_the_file() -> None:
    keys = {(s.kind, s.key): s for s in all_settings()}
    assert keys["", "extract.global"].default == "null"
    assert keys["methods", "methods[].label"].default is None
    assert keys["", "extract.local.scales"].default == "[0.5, 1.0, 2.0]"


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'match\.ration' \(did you mean 'match\.ratio'\?\)"):
        find_settings("match.ration")


@pytest.fixture(scope="module")
def schema() -> Any:
    return json_schema()


@pytest.mark.parametrize("name", pipeline_names())
def test_the_schema_takes_the_pipelines_of_the_package(schema: Any, name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(read_yaml(find_pipeline(name)), schema)


def test_the_schema_refuses_a_misspelt_key(schema: Any) -> None:
    data = read_yaml(find_pipeline("sfm"))
    data["verify"]["min_inlier"] = 20
    with pytest.raises(jsonschema.ValidationError, match="min_inlier"):
        jsonschema.validate(data, schema)


def test_the_command_prints_json(command: Any, tmp_path: Path) -> None:
    found = json.loads(command("settings", "verify.min_inliers", "--json").out)
    assert {item["kind"]: item["default"] for item in found} == {"": "15", "features": "15"}
    assert json.loads(command("settings", "--schema").out)["$defs"]["VerifyConfig"]


def test_every_kind_of_pipeline_file_is_listed() -> None:
    assert set(KIND_NAMES) == {"", *BY_SECTION}
