"""What is done again, and what is not: kills, new photos, changed settings, plans."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reconstruct
from reconstruct import colmap
from reconstruct.datasets.synthetic import SyntheticDataset
from reconstruct.features.sift import Sift
from reconstruct.matching.mutual_nn import MutualNN
from reconstruct.storage.features import open_features

KILLED = """
import os, signal, sys
from reconstruct import colmap
from reconstruct.__main__ import main
from reconstruct.features.sift import Sift
from reconstruct.matching.mutual_nn import MutualNN

place, survived, *arguments = sys.argv[1:]
owner, name = {
    "extract": (Sift, "_extract"),
    "match": (MutualNN, "match"),
    "verify": (colmap, "estimate_two_view_geometry"),
    "database": (colmap, "write_database"),
}[place]
function, calls = getattr(owner, name), 0

def die(*args, **kwargs):
    global calls
    calls += 1
    if calls > int(survived):
        os.kill(os.getpid(), signal.SIGKILL)
    return function(*args, **kwargs)

setattr(owner, name, die)
main(["run", *arguments, "-q"])
"""

Work = Counter[str]


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    """Counts the images extracted, the pairs matched and the pairs verified from here on."""
    counter: Work = Counter()

    def counted(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            counter[kind] += 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(Sift, "_extract", counted("extract", Sift._extract))
    monkeypatch.setattr(MutualNN, "match", counted("match", MutualNN.match))
    verified = counted("verify", colmap.estimate_two_view_geometry)
    monkeypatch.setattr(colmap, "estimate_two_view_geometry", verified)
    return counter


@pytest.fixture
def run(chain: Path, photos: Path, tmp_path: Path) -> Callable[..., reconstruct.Run]:
    """Runs the chain over ``photos`` into ``tmp_path / "out"``."""

    def call(output: str = "out", **changes: Any) -> reconstruct.Run:
        overrides = {key.replace("__", "."): value for key, value in changes.items()}
        return reconstruct.run(chain, photos, tmp_path / output, overrides, verbosity=-1)

    return call


def contents(output: Path) -> dict[str, bytes]:
    folders = ("features", "matches", "geometries")
    files = [file for folder in folders for file in (output / folder).iterdir()]
    files += [output / "pairs.txt"]
    return {path.relative_to(output).as_posix(): path.read_bytes() for path in sorted(files)}


# Six photos are three shards of 2, their fifteen pairs four (4 + 4 + 4 + 3).
KILLS = [
    ("extract", 2, {"extract": 4, "match": 15, "verify": 15}),
    ("extract", 5, {"extract": 2, "match": 15, "verify": 15}),
    ("match", 10, {"match": 7, "verify": 15}),
    ("verify", 11, {"verify": 7}),
    ("database", 0, {}),
]


@pytest.mark.parametrize(
    ("place", "survived", "left"), KILLS, ids=[f"{place}-{n}" for place, n, _ in KILLS]
)
def test_a_killed_run_goes_on_and_ends_as_one_never_killed(
    square: SyntheticDataset,
    chain: Path,
    finished: Path,
    tmp_path: Path,
    work: Work,
    place: str,
    survived: int,
    left: dict[str, int],
) -> None:
    output = tmp_path / "out"
    cameras = {"dataset.cameras": str(square.reference)}
    arguments = [str(chain), "--images", str(square.images), "--output", str(output)]
    arguments += ["--set", f"dataset.cameras='{square.reference}'"]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, place, str(survived), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},  # one pair at a time, whatever the machine
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    found = reconstruct.run(chain, square.images, output, cameras, verbosity=-1)
    assert work == left
    assert contents(output) == contents(finished)
    assert not list(output.rglob("*-tmp*"))
    assert found.model is not None
    model = colmap.read_model(finished / "sparse")
    assert colmap.model_summary(found.model) == colmap.model_summary(model)
    poses = colmap.model_poses(model)
    for name, pose in colmap.model_poses(found.model).items():
        np.testing.assert_array_equal(poses[name], pose)


def test_one_more_photo_costs_one_extraction_and_its_pairs(
    run: Callable[..., reconstruct.Run],
    square: SyntheticDataset,
    photos: Path,
    tmp_path: Path,
    work: Work,
) -> None:
    run()
    assert work == {"extract": 4, "match": 6, "verify": 6}
    work.clear()
    shutil.copy(square.images / square.names[4], photos / "0 new.jpg")
    found = run()
    assert work == {"extract": 1, "match": 4, "verify": 4}
    assert found.summary.figures["map"]["registered_images"] == 5
    fresh = run("fresh")
    assert fresh.summary.figures["pair"] == found.summary.figures["pair"] == {"pairs": 10}
    verified = [run.summary.figures["verify"]["verified_pairs"] for run in (fresh, found)]
    assert verified[0] == verified[1]
    first, second = open_features(tmp_path / "out"), open_features(tmp_path / "fresh")
    assert first.fingerprints() == second.fingerprints()
    for name in first.fingerprints():
        np.testing.assert_array_equal(first.load(name).descriptors, second.load(name).descriptors)

    work.clear()
    (photos / "0 new.jpg").unlink()
    assert run().summary.figures["map"]["registered_images"] == 4
    assert not work, "what a photo less needs is there"


def test_a_photo_that_changed_counts_by_its_content(
    run: Callable[..., reconstruct.Run], photos: Path, work: Work
) -> None:
    run()
    work.clear()
    first, second, *_ = sorted(photos.iterdir())
    first.touch()
    run()
    assert not work
    shutil.copy(second, first)
    run()
    assert work == {"extract": 1, "match": 3, "verify": 3}


DONE = "done done done done done done"
CHANGES: list[tuple[dict[str, Any], dict[str, int], str]] = [
    # settings; work done again; states of extract, pair, match, verify, database, map before
    ({}, {}, DONE),
    ({"extract__loaders": 1, "match__cache_mb": 1}, {}, DONE),
    ({"map__min_model_size": 2}, {}, "done done done done done stale"),
    ({"verify__min_inliers": 16}, {"verify": 6}, "done done done stale stale stale"),
    # The four photos have no EXIF data, but whose would count has changed for three of them.
    ({"dataset__camera_sharing": "single"}, {"verify": 6}, "done done done stale stale stale"),
    ({"seed": 1}, {"verify": 6}, "done done done stale stale stale"),
    (
        {"match__ratio": 0.85},
        {"match": 6, "verify": 6},
        "done done stale stale stale stale",
    ),
    (
        {"pair": {"method": "sequential", "overlap": 3}},
        {},
        "done stale waiting waiting waiting waiting",
    ),
    (
        {"extract__local__upright": True},
        {"extract": 4, "match": 6, "verify": 6},
        "stale waiting stale stale waiting waiting",
    ),
]


def test_a_changed_setting_redoes_what_depends_on_it_and_plan_foretells_it(
    run: Callable[..., reconstruct.Run], chain: Path, photos: Path, tmp_path: Path, work: Work
) -> None:
    def states(output: Path, changes: dict[str, Any]) -> str:
        overrides = {key.replace("__", "."): value for key, value in changes.items()}
        plans = reconstruct.plan(chain, photos, output, overrides)
        assert [name for name, _ in plans] == [
            "extract",
            "pair",
            "match",
            "verify",
            "database",
            "map",
        ]
        return " ".join(plan.state for _, plan in plans)

    start = tmp_path / "out"
    assert states(start, {}) == "missing missing missing missing missing missing"
    assert not start.exists(), "a plan changes nothing"
    run()
    for changes, expected, before in CHANGES:
        shutil.copytree(start, tmp_path / "changed")
        assert states(tmp_path / "changed", changes) == before, changes
        work.clear()
        run("changed", **changes)
        assert work == expected, changes
        assert states(tmp_path / "changed", changes) == DONE, changes
        shutil.rmtree(tmp_path / "changed")


def test_the_report_is_drawn_again_only_if_something_changed(
    run: Callable[..., reconstruct.Run], tmp_path: Path
) -> None:
    report = tmp_path / "out" / "report.html"

    def drawn(**changes: Any) -> bool:
        before = report.stat().st_mtime_ns if report.exists() else None
        run(**changes)
        return report.stat().st_mtime_ns != before

    assert drawn()
    assert not drawn()
    assert drawn(extract__loaders=1), "it shows the settings"
    assert drawn(map__min_model_size=2, extract__loaders=1)
    report.write_text("edited")
    assert drawn(map__min_model_size=2, extract__loaders=1)


def test_places_do_not_count(
    run: Callable[..., reconstruct.Run], chain: Path, photos: Path, tmp_path: Path, work: Work
) -> None:
    run()
    work.clear()
    photos.rename(tmp_path / "moved")
    (tmp_path / "out").rename(tmp_path / "renamed")
    plans = reconstruct.plan(chain, tmp_path / "moved", tmp_path / "renamed")
    assert {plan.state for _, plan in plans} == {"done"}


def test_force_and_only(chain: Path, photos: Path, tmp_path: Path, work: Work) -> None:
    def run(**arguments: Any) -> dict[str, Any]:
        found = reconstruct.run(chain, photos, tmp_path / "out", verbosity=-1, **arguments)
        return found.summary.figures

    assert list(run(only=["extract", "pair"])) == ["extract", "pair"]
    assert work == {"extract": 4}
    assert list(run()) == ["extract", "pair", "match", "verify", "database", "map"]
    assert work == {"extract": 4, "match": 6, "verify": 6}
    run(force=["match"])
    assert work == {"extract": 4, "match": 12, "verify": 6}
    run(force=["verify", "map"])
    assert list(run(only=["map"])) == ["map"]
    assert work == {"extract": 4, "match": 12, "verify": 12}


def test_a_plan_with_an_unreadable_photo(
    run: Callable[..., reconstruct.Run], chain: Path, photos: Path, tmp_path: Path
) -> None:
    (photos / "text.jpg").write_text("not a photo")
    run()
    plans = dict(reconstruct.plan(chain, photos, tmp_path / "out"))
    assert (plans["extract"].state, plans["extract"].todo, plans["extract"].total) == (
        "missing",
        1,
        5,
    )
    assert plans["map"].state == "waiting", "nothing to do unless the photo was mended"


def test_figures_of_the_run_before_a_killed_one_are_not_told(
    chain: Path, photos: Path, square: SyntheticDataset, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    reconstruct.run(chain, photos, output, verbosity=-1)
    old = (output / "summary.json").read_text(encoding="utf-8")
    shutil.copy(square.images / square.names[4], photos)
    reconstruct.run(chain, photos, output, verbosity=-1)
    (output / "summary.json").write_text(old, encoding="utf-8")  # killed before it was written
    again = reconstruct.run(chain, photos, output, verbosity=-1)
    told = json.loads((output / "summary.json").read_text(encoding="utf-8"))["stages"]
    assert told["extract"]["figures"]["images"] == 5
    assert told["map"]["figures"]["of_images"] == 5
    assert "seconds" not in told["extract"], "nobody knows them"
    assert "extract" not in again.summary.seconds


def test_the_summary_keeps_what_the_run_told_that_did_the_work(
    chain: Path, photos: Path, tmp_path: Path
) -> None:
    first = reconstruct.run(chain, photos, tmp_path / "out", verbosity=-1)
    told = json.loads((first.output / "summary.json").read_text(encoding="utf-8"))["stages"]
    assert told["extract"]["figures"]["extracted_now"] == 4
    again = reconstruct.run(chain, photos, tmp_path / "out", verbosity=-1)
    kept = json.loads((first.output / "summary.json").read_text(encoding="utf-8"))["stages"]
    assert kept == told, "figures, seconds and times of the run that extracted"
    assert again.summary.seconds == {stage: entry["seconds"] for stage, entry in told.items()}


WITHOUT_TORCH = """
import sys
from reconstruct.__main__ import main
status = main(["run", *sys.argv[1:], "-q"])
sys.exit(status or ("torch" in sys.modules))
"""


def test_a_run_with_nothing_to_do_does_not_load_torch(
    output: Path, square: SyntheticDataset, chain: Path
) -> None:
    arguments = [str(chain), "--images", str(square.images), "--output", str(output)]
    arguments += ["--set", f"dataset.cameras={square.reference}"]
    process = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *arguments], check=False)
    assert process.returncode == 0
