"""Fixtures that the whole suite shares."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import settings
from synthetic_aachen import write_aachen

from reconstruct import executor
from reconstruct.__main__ import main
from reconstruct.cluster import connection
from reconstruct.datasets.synthetic import SyntheticDataset, write_dataset
from reconstruct.executor import Job

# The same examples in every run, however slow the machine is.
settings.register_profile("tests", derandomize=True, deadline=None, database=None)
settings.load_profile("tests")

SHARED = Path(os.environ.get("RECONSTRUCT_SHARED", Path(__file__).parents[2] / "shared"))

CHAIN: dict[str, Any] = {
    "name": "chain",
    "dataset": {"format": "folder", "images": "photos"},
    "extract": {"local": {"name": "sift"}},
    "pair": {"method": "exhaustive"},
    "match": {"method": "mutual_nn", "ratio": 0.9},
    "verify": {},
    "map": {"threads": 1},
}
"""A pipeline without a network: all stages in a second on the small square."""


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photos with ground truth; skips where it is absent."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip(f"no real photos: {folder} is absent (set RECONSTRUCT_SHARED)")
    return folder


@pytest.fixture(scope="session")
def square(tmp_path_factory: pytest.TempPathFactory) -> SyntheticDataset:
    """Six small photos of the synthetic square, with exact poses. Not to be changed."""
    return write_dataset(tmp_path_factory.mktemp("square"), views=6, size=(320, 240), arc_deg=60.0)


@pytest.fixture(scope="session")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small square in Aachen Day-Night's layout: 8 database photos, 2 day and 2 night queries.
    Not to be changed: copy it."""
    folder = tmp_path_factory.mktemp("town") / "aachen"
    return write_aachen(folder, database=8, queries=2, size=(240, 180), texels_per_m=32.0)


@pytest.fixture(scope="session")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline file: folder of photos, SIFT, all stages but evaluate."""
    path = tmp_path_factory.mktemp("pipeline") / "chain.yaml"
    path.write_text(yaml.safe_dump(CHAIN), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def finished(
    square: SyntheticDataset, chain: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The output folder of a run over the small square. Not to be changed: copy it."""
    output = tmp_path_factory.mktemp("finished") / "out"
    cameras = f"dataset.cameras={json.dumps(str(square.reference))}"
    arguments = ["--images", str(square.images), "--output", str(output), "--set", cameras]
    assert main(["run", str(chain), *arguments, "-q"]) == 0
    return output


@pytest.fixture
def output(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run's output folder."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


@pytest.fixture
def photos(square: SyntheticDataset, tmp_path: Path) -> Path:
    """A folder of the test's own with the first four photos of the square."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in square.names[:4]:
        shutil.copy(square.images / name, folder)
    return folder


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and what it wrote."""

    status: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    """``command("run", path, "--images", folder)``: the command line, in this process."""

    def call(*arguments: Any) -> Outcome:
        capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return Outcome(status, captured.out, captured.err)

    return call


class Elsewhere:
    """Runs each chunk as a process of its own would, on what was sent to it; the last first."""

    def run(self, job: Job, chunks: Sequence[Any]) -> Iterator[executor.Outcome]:
        """The outcomes of ``chunks``, in another order."""
        sent = pickle.dumps(job)
        for chunk in reversed(chunks):
            yield from pickle.loads(sent)([pickle.loads(pickle.dumps(chunk))])


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks run as if in other processes."""
    monkeypatch.setattr(connection, "InProcess", Elsewhere)
