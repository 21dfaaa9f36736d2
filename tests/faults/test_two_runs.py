"""Two runs over the same photos leave the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import reconstruct
from reconstruct.datasets.synthetic import SyntheticDataset

TOLD = ("log.txt", "summary.json", "report.html", "run.yaml")
"""What tells of the runs, and so differs between one run and many."""


@pytest.fixture
def everything(square: SyntheticDataset, tmp_path: Path) -> Path:
    """A pipeline file with all stages: a refined map, and two of the photos localized in it."""
    queries = tmp_path / "queries.txt"
    queries.write_text("".join(f"{name}\n" for name in square.names[:2]), encoding="utf-8")
    pipeline: dict[str, Any] = {
        "name": "everything",
        "dataset": {
            "format": "folder",
            "images": str(square.images),
            "cameras": str(square.reference),
            "queries": str(queries),
        },
        "extract": {"local": {"name": "sift"}, "global": {"name": "gem", "max_edge": 64}},
        "pair": {"method": "exhaustive", "queries": {"method": "retrieval", "neighbors": 3}},
        "match": {"method": "mutual_nn", "ratio": 0.9},
        "verify": {},
        "refine": {},
        "map": {"threads": 1},
        "localize": {"refine": {}},
        "evaluate": {"submission": "submission.txt"},
    }
    path = tmp_path / "everything.yaml"
    path.write_text(yaml.safe_dump(pipeline), encoding="utf-8")
    return path


def contents(output: Path) -> dict[str, bytes]:
    files = [path for path in output.rglob("*") if path.is_file() and path.name not in TOLD]
    return {
        path.relative_to(output).as_posix(): path.read_bytes()
        for path in sorted(files)
        if not path.name.startswith(".")  # locks, and stamps with the times of files
    }


@pytest.mark.slow
def test_two_runs_are_equal_bit_by_bit(everything: Path, tmp_path: Path) -> None:
    for name in "ab":
        reconstruct.run(everything, output=tmp_path / name, verbosity=-1)
    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert {"database.db", "sparse/images.bin", "poses.txt"} <= first.keys()
    assert first == second
