"""Workers of a Dask cluster: the same bytes, whatever is killed; clear errors."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import reconstruct
from reconstruct.cluster import connection, dask_executor
from reconstruct.cluster.connection import open_executor
from reconstruct.cluster.settings import ClusterConfig, parse_cluster
from reconstruct.datasets.synthetic import SyntheticDataset
from reconstruct.errors import DataError, UsageError
from reconstruct.executor import InProcess
from reconstruct.ownership import HOLDER

FOLDERS = ("features", "matches", "geometries")

KILLS = """
import os, signal
from pathlib import Path
from reconstruct import colmap
from reconstruct.features.sift import Sift
from reconstruct.matching.mutual_nn import MutualNN

def kill_once(owner, name, process, survived):
    function, calls, marker = getattr(owner, name), [], Path({folder!r}) / name
    def dying(*args, **kwargs):
        calls.append(1)
        if len(calls) > survived and not marker.exists():
            marker.touch()
            os.kill(process(), signal.SIGKILL)
        return function(*args, **kwargs)
    setattr(owner, name, dying)

{kills}
"""
"""Loaded by every worker when it starts."""
WORKERS = """
kill_once(Sift, "_extract", os.getpid, 1)
kill_once(MutualNN, "match", os.getpid, 3)
"""
DRIVER = """
kill_once(colmap, "estimate_two_view_geometry", os.getppid, 2)
"""


def contents(output: Path) -> dict[str, bytes]:
    files = [file for folder in FOLDERS for file in sorted((output / folder).iterdir())]
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in files}


class Runner:
    """Runs the chain on the square's photos with two workers, in a process of its own."""

    def __init__(self, square: SyntheticDataset, chain: Path, folder: Path) -> None:
        self.output, self.folder = folder / "out", folder
        self.arguments = [str(chain), "--images", str(square.images), "--output", str(self.output)]
        self.arguments += ["--set", f"dataset.cameras={square.reference}", "--cluster", "local:2"]

    def __call__(self, kills: str = "") -> subprocess.CompletedProcess[str]:
        preload = self.folder / "preload.py"
        preload.write_text(KILLS.format(folder=str(self.folder), kills=kills))
        return subprocess.run(
            [sys.executable, "-m", "reconstruct", "run", *self.arguments],
            capture_output=True,
            text=True,
            check=False,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "DASK_DISTRIBUTED__WORKER__PRELOAD": str(preload),
            },
        )


@pytest.fixture
def run(square: SyntheticDataset, chain: Path, tmp_path: Path) -> Runner:
    pytest.importorskip("distributed")
    return Runner(square, chain, tmp_path)


def test_workers_that_are_killed_change_no_byte(run: Runner, finished: Path) -> None:
    done = run(WORKERS)
    assert done.returncode == 0, done.stderr
    assert "cluster: 2 worker(s) on this machine; dashboard http://" in done.stderr
    assert (run.folder / "_extract").exists()
    assert (run.folder / "match").exists()
    assert contents(run.output) == contents(finished)
    assert not list(run.output.rglob("*-tmp*"))


def test_a_driver_that_is_killed_leaves_what_was_written(
    run: Runner, finished: Path, square: SyntheticDataset, chain: Path
) -> None:
    killed = run(DRIVER)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    written = contents(run.output)
    expected = contents(finished)
    assert {name for name in expected if not name.startswith("geometries")} <= set(written)
    here = reconstruct.run(
        chain, square.images, run.output, {"dataset.cameras": str(square.reference)}, verbosity=-1
    )
    assert here.summary.figures["match"]["matched_now"] == 0
    assert contents(run.output) == expected


@pytest.mark.parametrize("refined", [False, True], ids=["chain", "refined"])
def test_chunks_can_be_made_anywhere_in_any_order(
    chain: Path, photos: Path, tmp_path: Path, refined: bool, request: pytest.FixtureRequest
) -> None:
    changes: dict[str, Any] = {"refine.method": "multiview"} if refined else {}
    shutil.copy(photos / sorted(os.listdir(photos))[0], photos / "a copy.jpg")
    (photos / "b broken.jpg").write_bytes(b"no photo")
    reconstruct.run(chain, photos, tmp_path / "here", changes, verbosity=-1)
    request.getfixturevalue("elsewhere")
    reconstruct.run(chain, photos, tmp_path / "elsewhere", changes, verbosity=-1)
    for folder in (*FOLDERS, *(("alignments", "refined_geometries") if refined else ())):
        made = sorted((tmp_path / "here" / folder).iterdir())
        assert made
        for path in made:
            assert path.read_bytes() == (tmp_path / "elsewhere" / folder / path.name).read_bytes()


def test_what_the_command_line_says() -> None:
    assert parse_cluster("local:4") == {"address": None, "workers": 4}
    assert parse_cluster("local") == {"address": None, "workers": None}
    assert parse_cluster("tcp://node:8786") == {"address": "tcp://node:8786"}
    assert parse_cluster("scheduler.json") == {"address": "scheduler.json"}
    for wrong in ("local:0", "local:x", "node"):
        with pytest.raises(UsageError, match="expected local:N"):
            parse_cluster(wrong)


def test_without_the_section_all_stays_in_this_process(tmp_path: Path) -> None:
    with open_executor(None, tmp_path) as executor:
        assert isinstance(executor, InProcess)


def test_without_dask_the_error_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(UsageError, match=r"pip install 'reconstruct\[cluster\]'"),
        open_executor(ClusterConfig(workers=1), tmp_path),
    ):
        pass


def test_no_scheduler_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(connection, "CONNECT_S", 0.5)
    with (
        pytest.raises(UsageError, match=r"no Dask scheduler answers at tcp://127.0.0.1:9 "),
        open_executor(ClusterConfig(address="tcp://127.0.0.1:9"), tmp_path),
    ):
        pass


BAD_ADDRESSES = {
    "foo://host:1": "unknown address scheme",
    "tcp://[::1": "invalid address",
    "tcp://host:99999999": "no number of a port",
    "absent.json": "No such file",
    "pipe.json": "not a regular file",
    "deep.json": "nested too deeply",
    "list.json": "list indices",
}


@pytest.mark.parametrize("where", BAD_ADDRESSES)
def test_an_address_that_is_none_ends_at_once(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(connection, "CONNECT_S", 0.2)
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "list.json").write_text("[]")
    address = str(tmp_path / where) if where.endswith(".json") else where
    with (
        pytest.raises(UsageError, match=BAD_ADDRESSES[where]),
        open_executor(ClusterConfig(address=address), tmp_path),
    ):
        pass


def test_a_scheduler_that_is_gone_is_told_as_such() -> None:
    pytest.importorskip("distributed")

    class Client:
        status = "closed"

        def submit(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("lost")

    executor = dask_executor.DaskExecutor(Client(), ClusterConfig(), None)
    assert list(executor.run(len, [])) == []
    with pytest.raises(DataError, match=r"scheduler is gone; what was written stays"):
        list(executor.run(len, [[1]]))


def test_a_worker_stops_when_another_run_has_taken_over(tmp_path: Path) -> None:
    run = dask_executor.Driver("/", tmp_path / HOLDER, "1 first", None)
    with pytest.raises(UsageError, match=r"not seen by worker .* under one path"):
        run.check()
    run.holder.write_text("1 first")
    run.check()
    run.holder.write_text("2 second")
    with pytest.raises(UsageError, match="another run has taken over"):
        run.check()


def test_a_machine_without_workers_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dask gives up a worker that it cannot start again; the run once waited for ever."""
    pytest.importorskip("distributed")
    monkeypatch.setattr(dask_executor, "WORKERS_S", 0.1)
    (tmp_path / HOLDER).write_text("this run")
    with open_executor(ClusterConfig(workers=1), tmp_path) as executor:
        assert isinstance(executor, dask_executor.DaskExecutor)
        executor.client.retire_workers()
        with pytest.raises(DataError, match="no worker is left on this machine"):
            next(iter(executor.run(len, [["chunk"]])))  # type: ignore[arg-type]
