"""A run that was killed at any moment, or met a full disk, goes on and ends as any other.

The whole of it takes hours, so it runs where it is asked for: RECONSTRUCT_STRIDE=1 takes every
change of the output folder by every small run in turn (`RUNS`; half an hour), disks of every size
in steps of 16 KiB (two hours), and edits of finished folders; RECONSTRUCT_STRIDE=5 takes each fifth
of the cases.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from faults import attempts
from faults.small_runs import RUNS, write_spec

from reconstruct.datasets.synthetic import SyntheticDataset

STRIDE = int(os.environ.get("RECONSTRUCT_STRIDE", "0"))
FIRST = int(os.environ.get("RECONSTRUCT_FIRST", "1"))
OF_ONES_OWN = ["unshare", "--map-root-user", "--mount"]
"""Mounts that nobody else sees, and that end with the process."""
EDITS = int(os.environ.get("RECONSTRUCT_EDITS", "100"))

matrix = pytest.mark.skipif(not STRIDE, reason="hours: set RECONSTRUCT_STRIDE=1 for all cases")


def tried(kind: str, spec: Path, prefix: list[str] | None = None) -> list[dict[str, Any]]:
    """The cases of attempts.py; the first tells of the undisturbed run."""
    program = Path(attempts.__file__)
    found = subprocess.run(
        [*(prefix or []), sys.executable, str(program), kind, str(spec)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert found.returncode == 0, found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


def assert_same_end(found: dict[str, Any], status: int) -> None:
    assert found["again"] == status, found
    assert found["differing"] == [], found


@pytest.fixture
def small(request: pytest.FixtureRequest, square: SyntheticDataset, tmp_path: Path) -> Any:
    """The small run of a name."""
    return RUNS[request.param](tmp_path, square)


@pytest.mark.parametrize("small", ["plain"], indirect=True)
def test_killed_at_one_change_more_each_time(small: Any, tmp_path: Path) -> None:
    whole, last = tried("growing", write_spec(small, tmp_path))
    assert whole["status"] == 0, whole
    assert_same_end(last, 0)
    assert last["case"] > 5


@pytest.mark.slow
@matrix
@pytest.mark.parametrize("small", RUNS, indirect=True)
def test_killed_at_every_change(
    small: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, *cases = tried("stops", write_spec(small, tmp_path, first=FIRST, step=STRIDE))
    assert whole["status"] == 0, whole
    for found in cases:
        assert found.get("killed", -signal.SIGKILL) == -signal.SIGKILL, found
        assert found.get("left", []) == [], found
        assert_same_end(found, 0)
    with capsys.disabled():
        stood = sum(found["stops"] for found in cases)
        print(f"\n{stood} of {whole['changes']} changes, {len(cases)} different folders")


def assert_told(found: dict[str, Any]) -> None:
    """One line that begins with ``error``, an exit status of the program, and no traceback."""
    assert found["status"] in (0, 1, 2, 3), found
    assert "Traceback" not in found["told"], found
    errors = [line for line in found["told"].splitlines() if line.startswith("error: ")]
    assert len(errors) == (found["status"] in (1, 2)), found


@pytest.fixture
def mounts() -> list[str]:
    """What gives a program mounts of its own; skips where that is not allowed."""
    for prefix in (OF_ONES_OWN, [OF_ONES_OWN[0], OF_ONES_OWN[2]]):
        command = [*prefix, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return prefix
    pytest.skip("this system does not let us mount a small disk")


@pytest.mark.slow
@matrix
@pytest.mark.parametrize("small", RUNS, indirect=True)
def test_a_disk_of_every_size(
    small: Any, tmp_path: Path, mounts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write_spec(small, tmp_path, first=FIRST, step=STRIDE)
    whole, *cases = tried("disk", spec, mounts)
    assert whole["status"] == 0, whole
    for found in cases:
        assert_told(found)
        assert_same_end(found, 0)
        assert found["temporaries"] == [], found
        assert found["lost without a word"] == [], found
        if found["status"]:
            assert "free or repair the disk" in found["told"], found
            assert str(tmp_path) in found["told"], found
    with capsys.disabled():
        print(f"\n{sum(found['status'] == 1 for found in cases)} full disks")


@pytest.mark.slow
@matrix
@pytest.mark.parametrize("small", ["everything", "room", "training", "export hloc"], indirect=True)
def test_edited_files_of_a_finished_folder(
    small: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = write_spec(small, tmp_path, first=FIRST, last=EDITS, step=STRIDE)
    whole, *cases = tried("tampering", spec)
    assert whole["status"] == 0, whole
    for found in cases:
        assert_told(found)
    with capsys.disabled():
        print(f"\n{len(cases)} edits, {sum(found['status'] > 0 for found in cases)} told")
