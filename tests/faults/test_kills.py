"""A run that is killed at every place where it commits something, one commit after the other."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconstruct.datasets.synthetic import SyntheticDataset

ONE_COMMIT = """
import os, signal, sys
from reconstruct.__main__ import main

replace, left = os.replace, 2

def commit(*args):
    global left
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*args)
    left -= os.path.basename(args[1]) not in ("run.yaml", "summary.json")

if sys.argv[1] == "killed":
    os.replace = commit
sys.exit(main(["run", *sys.argv[2:], "-q"]))
"""
"""The command line; ``killed`` after two commits (what every run writes left aside), as the third
would get its name. Two, since an artifact made in one piece is committed before its stamp: killed
between these it is made again."""

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


def run(mode: str, pipeline: Path, output: Path) -> int:
    arguments = [mode, str(pipeline), "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-c", ONE_COMMIT, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def contents(output: Path) -> dict[str, bytes]:
    files = [path for path in output.rglob("*") if path.is_file() and path.name not in TOLD]
    return {
        path.relative_to(output).as_posix(): path.read_bytes()
        for path in sorted(files)
        if not path.name.startswith(".")  # locks, and stamps with the times of files
    }


@pytest.mark.slow
def test_a_run_killed_at_every_commit_ends_as_one_never_killed(
    everything: Path, tmp_path: Path
) -> None:
    assert run("whole", everything, tmp_path / "whole") == 0
    kills = 0
    while run("killed", everything, tmp_path / "killed") != 0:
        kills += 1
    print(f"{kills} kills")
    assert kills >= 15
    whole, killed = contents(tmp_path / "whole"), contents(tmp_path / "killed")
    assert killed.keys() == whole.keys()
    assert [name for name in whole if killed[name] != whole[name]] == []


@pytest.mark.slow
def test_two_runs_are_equal_bit_by_bit(everything: Path, tmp_path: Path) -> None:
    for name in "ab":
        assert run("whole", everything, tmp_path / name) == 0
    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert {"database.db", "sparse/images.bin", "poses.txt"} <= first.keys()
    assert first == second
