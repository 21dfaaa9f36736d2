"""A table of extractors in one localization benchmark, on the made-up square in Aachen's layout."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import reconstruct
from reconstruct.errors import ConfigError
from reconstruct.pipeline.config import load_config

PIPELINE = Path(__file__).parents[2] / "pipelines" / "aachen_table.yaml"


@pytest.fixture
def pairs(town: Path, tmp_path: Path) -> Path:
    """A list of all pairs that the challenge could ask for: of the map, and of night with it."""
    images = town / "images_upright"
    names = sorted(p.relative_to(images).as_posix() for p in images.rglob("*.jpg"))
    mapped = [name for name in names if name.startswith("db/")]
    night = [name for name in names if "night" in name]
    wanted = [*itertools.combinations(mapped, 2), *itertools.product(night, mapped)]
    path = tmp_path / "image_pairs_to_match.txt"
    path.write_text("".join(f"{a} {b}\n" for a, b in wanted), encoding="utf-8")
    return path


def settings(town: Path, pairs: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "dataset.root": str(town),
        "pair.path": str(pairs),
        "pair.queries.path": str(pairs),
        "map.threads": 1,
        "evaluate.reference": str(town / "ground_truth.txt"),
        "features": rows,
    }


def test_each_row_localizes_and_has_its_file(town: Path, pairs: Path, tmp_path: Path) -> None:
    rows = [
        {"label": "SIFT", "local": {"name": "sift"}, "match": {"ratio": 0.9}},
        {"label": "Upright RootSIFT", "local": {"name": "sift", "upright": True}},
        {"label": "Lacking", "local": {"name": "superpoint", "weights": str(tmp_path / "no.pth")}},
    ]
    given = settings(town, pairs, rows)
    run = reconstruct.run(PIPELINE, output=tmp_path / "out", overrides=given, verbosity=-1)
    table = run.summary.tables["queries: all"]
    assert [row[0] for row in table] == ["row", "SIFT", "Upright RootSIFT"]
    assert table[0][2:6] == ["0.5 m, 2 deg", "1 m, 5 deg", "5 m, 10 deg", "10 m, 25 deg"]
    assert "no such weights file" in run.summary.skipped["Lacking"]
    for label in ("SIFT", "Upright RootSIFT"):
        found = run.metrics["rows"][label]["all"]
        assert found["queries"] == 2
        assert found["localized"] == 2
        folder = tmp_path / "out" / "rows" / label
        name = f"Aachen_eval_[aachen_table_{label.replace(' ', '_')}].txt"
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        assert sorted(line.split()[0] for line in lines) == ["night-00.jpg", "night-01.jpg"]
        told = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        assert told["submission"] == name
    states = {
        name: p.state for name, p in reconstruct.plan(PIPELINE, None, tmp_path / "out", given)
    }
    assert states["SIFT"] == states["Upright RootSIFT"] == "done"
    assert states["Lacking"] == "missing"


def test_rows_share_what_they_do_not_say() -> None:
    config: Any = load_config(PIPELINE)
    dense = next(row for row in config.features if row.label == "DenseSfM")
    plain = next(row for row in config.features if row.label == "D2 SS")
    assert config.sections(dense)["match"].method == "dense"
    assert config.sections(plain)["match"] is config.match
    assert config.sections(plain)["evaluate"].submission == "aachen_table_D2_SS"
    assert config.sections(plain)["verify"].min_inlier_ratio == 0.25


def test_labels_are_told_apart(tmp_path: Path) -> None:
    content = yaml.safe_load(PIPELINE.read_text(encoding="utf-8"))
    content["features"] = [{"label": "a", "local": {"name": "sift"}}] * 2
    path = tmp_path / "table.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(ConfigError, match="label 'a' is taken"):
        load_config(path)
