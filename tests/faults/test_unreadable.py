"""What cannot be read in an output folder counts as missing: it holds up no run, and ends none."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reconstruct.benchmark.method import _read_scores
from reconstruct.datasets.conversion import _read_record as read_converted
from reconstruct.datasets.video import _read_record as read_frames
from reconstruct.ownership import HOLDER
from reconstruct.progress import Reporter, logging_to
from reconstruct.stages.evaluate import read_metrics
from reconstruct.stages.georegister import read_gps
from reconstruct.stamps import read_stamps
from reconstruct.storage.hashes import ContentHashes
from reconstruct.storage.shards import ShardStore
from reconstruct.storage.summary import read_summary
from reconstruct.storage.turns import read_turns
from reconstruct.training.checkpoint import read_state
from reconstruct.workspace import Workspace

READERS: dict[str, Callable[[Path], object]] = {
    ".fingerprints.json": read_stamps,
    "summary.json": read_summary,
    "metrics.json": lambda path: read_metrics(Workspace(path.parent)),
    "gps.json": lambda path: read_gps(Workspace(path.parent)),
    "scores.json": _read_scores,
    "turns.json": read_turns,
    "images.json": lambda path: read_converted(path.with_suffix("")) or read_frames(path),
    "scan_hashes.json": lambda path: ContentHashes(path)._load(),
    "last.safetensors": read_state,
    "part-00000.h5": lambda path: ShardStore(path.parent).fingerprints(),
}
"""Name of a file -> what reads it, and finds nothing where it cannot."""


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    signal.alarm(30)  # ends the tests: nothing else would
    yield
    signal.alarm(0)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["pipe", "folder", "deep nesting", "no UTF-8"])
def test_it_counts_as_missing(name: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"[" * 200_000 if kind == "deep nesting" else b'{"\xff": 1}')
    assert not READERS[name](path)


def test_pipes_under_the_names_of_lock_and_log(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / HOLDER)
    with Workspace(tmp_path).lock():
        assert str(os.getpid()) in (tmp_path / HOLDER).read_text()
    os.mkfifo(tmp_path / "log.txt")
    with (
        pytest.raises(OSError, match="not a regular file"),
        logging_to(Reporter(-1), tmp_path / "log.txt"),
    ):
        pass
