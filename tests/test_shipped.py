"""Pipelines by name, and what a misspelt path costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from reconstruct.errors import ConfigError
from reconstruct.shipped import find_pipeline, pipeline_names

TOP_LEVEL = Path(__file__).parents[1] / "pipelines"


def test_the_package_holds_the_pipelines_of_the_top_level() -> None:
    expected = {path.stem: path.read_bytes() for path in TOP_LEVEL.glob("*.yaml")}
    assert {name: find_pipeline(name).read_bytes() for name in pipeline_names()} == expected
    assert {"demo", "sfm", "localize"} <= set(expected)


def test_a_file_comes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_pipeline("sfm").is_absolute()
    Path("sfm").write_text("name: mine", encoding="utf-8")
    assert find_pipeline("sfm") == Path("sfm")
    with pytest.raises(ConfigError, match=r"^mine/smf\.yaml: .*did you mean 'sfm'.*valid: aachen"):
        find_pipeline("mine/smf.yaml")


WITHOUT_TORCH = """
import json, sys
from reconstruct.__main__ import main
statuses = [main(arguments) for arguments in json.loads(sys.argv[1])]
print(json.dumps([statuses, sorted({"torch", "pycolmap", "numpy", "pydantic"} & set(sys.modules))]))
"""


def test_a_misspelt_path_is_told_before_anything_heavy_is_loaded() -> None:
    commands = [
        ["run", "smf"],
        ["run", "sfm", "--images", "nowhere"],
        ["plan", "sfm", "--images", "nowhere"],
        ["init", "smf"],
        ["evaluate", "nowhere", "--reference", "."],
        ["evaluate", ".", "--reference", "nowhere"],
        ["compare", "sfm", "--methods", "sift", "--reference", "nowhere"],
        ["prepare", "megadepth", "nowhere", "--output", "x"],
        ["view", "nowhere"],
        ["export", "nowhere", "--format", "ply"],
        ["export", ".", "--format", "ply", "--images", "nowhere"],
        ["doctor", "nowhere"],
    ]
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, json.dumps(commands)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(found.stdout) == [[2] * len(commands), []]
    assert len(found.stderr.splitlines()) == len(commands)
