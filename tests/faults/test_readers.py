"""No file that is read, however damaged, brings a traceback, a hang or all of the memory.

The slow part runs RECONSTRUCT_FAULTS cases (1,000 if unset), spread over the formats, and prints
how many of them were read and how many refused. All of docs/SECURITY.md's:

    RECONSTRUCT_FAULTS=10000 pytest -m slow tests/faults
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.formats import Format, formats
from faults.stored_formats import stored_formats
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from reconstruct.datasets.synthetic import SyntheticDataset
from reconstruct.errors import ReconstructError

CASES = int(os.environ.get("RECONSTRUCT_FAULTS", "1000"))
QUICK = 25
NAMES = [
    *(
        "checkpoint",
        "depth",
        "features",
        "foreign photo",
        "gps table",
        "gravity table",
        "matlab",
        "model, binary",
        "model, text",
        "nvm",
    ),
    *(
        "override",
        "pairs",
        "panorama",
        "photo",
        "pipeline file",
        "poses",
        "queries",
        "rigs",
        "rows of numbers",
    ),
    *("safetensors", "scene file", "superpoint", "transformation", "video"),
    *("basis", "database", "global index", "texts of a run"),
    *(f"shard of {kind}" for kind in ("candidates", "estimates", "features", "geometries")),
    *("shard of matches", "shard of scores"),
    *("depth in HDF5", "depth of COLMAP", "netvlad", "raw photo"),
    *("tags of a phone", "tags of a photo"),
]
SECONDS = 20.0
"""Of processor time that a file of some kilobytes may take."""
MEMORY = 3 << 30
"""Bytes of address space beyond what the process had before."""


@pytest.fixture(scope="module")
def by_name(
    square: SyntheticDataset, finished: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Format]:
    folder = tmp_path_factory.mktemp("faults") / "model"
    shutil.copytree(square.reference, folder)
    found = formats(folder) | stored_formats(finished, tmp_path_factory.mktemp("stored"))
    assert sorted(found) == sorted(NAMES)
    return found


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def attack(name: str, known: Format, folder: Path, cases: int) -> Counter[str]:
    """Read so many damaged files; counts what became of them."""
    outcome: Counter[str] = Counter()

    @seed(len(name))
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def read(data: st.DataObject) -> None:
        file = data.draw(st.sampled_from(sorted(known.whole)))
        content = data.draw(known.damaged(file))
        for other, whole in known.whole.items():
            (folder / other).write_bytes(content if other == file else whole)
        started = time.process_time()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                known.read(folder / file)
            told = ""
        except ReconstructError as error:
            told = str(error)
        outcome["refused" if told else "read"] += 1
        assert len(told) < 20_000, "the input is not printed"
        assert time.process_time() - started < SECONDS

    read()
    return outcome


@pytest.mark.parametrize("name", NAMES)
def test_whole_files_are_read(name: str, by_name: dict[str, Format], tmp_path: Path) -> None:
    known = by_name[name]
    for file, content in known.whole.items():
        (tmp_path / file).write_bytes(content)
    refused = {}
    for file in known.whole:
        try:
            known.read(tmp_path / file)
        except ReconstructError as error:
            refused[file] = str(error)
    if name in ("safetensors", "checkpoint", "superpoint", "netvlad"):  # too small
        assert set(refused) == set(known.whole)
        assert all(re.search(r"shape|no entry|no tensor|not the .mat", t) for t in refused.values())
    else:
        assert not refused


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files(name: str, by_name: dict[str, Format], tmp_path: Path) -> None:
    outcome = attack(name, by_name[name], tmp_path, QUICK)
    assert outcome["refused"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_many_damaged_files(
    name: str, by_name: dict[str, Format], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = attack(name, by_name[name], tmp_path, -(-CASES // len(NAMES)))
    with capsys.disabled():
        print(f"\n{name}: {sum(outcome.values())} cases, {dict(sorted(outcome.items()))}")
    assert outcome["refused"] > 0
