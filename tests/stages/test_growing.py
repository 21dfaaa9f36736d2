"""Models that grow, and mapping that was killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reconstruct
from reconstruct import colmap
from reconstruct.datasets.synthetic import SyntheticDataset
from reconstruct.errors import UsageError
from reconstruct.stages.evaluate import evaluate_output

Run = Callable[..., reconstruct.Run]


@pytest.fixture
def run(chain: Path, square: SyntheticDataset, photos: Path, tmp_path: Path) -> Run:
    """Runs the chain over ``photos`` into ``tmp_path / "out"``; ``a__b=c`` sets ``a.b``."""

    def call(output: str = "out", images: Path = photos, **changes: Any) -> reconstruct.Run:
        overrides = {key.replace("__", "."): value for key, value in changes.items()}
        overrides["dataset.cameras"] = str(square.reference)
        return reconstruct.run(chain, images, tmp_path / output, overrides, verbosity=-1)

    return call


def poses(found: reconstruct.Run) -> dict[str, Any]:
    assert found.model is not None
    return colmap.model_poses(found.model)


def add(square: SyntheticDataset, photos: Path, name: str = "0 new.jpg") -> None:
    shutil.copy(square.images / square.names[4], photos / name)  # its name comes first


@pytest.mark.parametrize("fixed", [False, True])
def test_a_new_photo_joins_the_model_that_is_there(
    run: Run, square: SyntheticDataset, photos: Path, fixed: bool
) -> None:
    before = poses(run())
    add(square, photos, square.names[4])
    add(square, photos)
    (photos / "0 new.jpg").unlink()
    grown = run(map__start="previous", map__fixed=fixed)
    figures = grown.summary.figures["map"]
    assert (figures["grown_from_images"], figures["new_images"]) == (4, 1)
    after = poses(grown)
    assert sorted(after) == sorted([*before, square.names[4]])
    for name, pose in before.items():
        if fixed:
            np.testing.assert_array_equal(after[name], pose)
        else:
            np.testing.assert_allclose(after[name], pose, atol=0.02)
    assert evaluate_output(grown.output, square.reference).position_max < 0.05
    again = run(map__start="previous", map__fixed=fixed)
    assert "new_images" not in again.summary.figures["map"], "nothing to do"


def test_a_model_is_grown_from_another_folder_and_by_name(
    run: Run, square: SyntheticDataset, photos: Path, tmp_path: Path
) -> None:
    before = poses(run())
    add(square, photos)  # the ids of all others change
    (photos / square.names[0]).unlink()
    other = run("other", map__start=str(tmp_path / "out"), map__fixed=True)
    assert other.summary.figures["map"]["images_without_photo"] == [square.names[0]]
    after = poses(other)
    assert sorted(after) == ["0 new.jpg", *square.names[1:4]]
    for name in square.names[1:4]:
        np.testing.assert_array_equal(after[name], before[name])


def test_a_model_of_other_keypoints_is_triangulated_anew(
    run: Run, square: SyntheticDataset, photos: Path, tmp_path: Path
) -> None:
    before = poses(run(extract__local__upright=True, extract__local__max_keypoints=300))
    add(square, photos, square.names[4])
    found = run("other", map__start=str(tmp_path / "out"), map__fixed=True)
    after = poses(found)
    assert sorted(after) == sorted([*before, square.names[4]])
    for name, pose in before.items():
        np.testing.assert_array_equal(after[name], pose)
    assert found.summary.figures["map"]["points"] > 100


def test_extend_adds_photos_by_file(run: Run, square: SyntheticDataset, photos: Path) -> None:
    first = run()
    before = poses(first)
    new = [square.images / name for name in square.names[4:]]
    second = reconstruct.extend(first, new, fixed=True, verbosity=-1)
    assert sorted(path.name for path in photos.iterdir()) == sorted(square.names)
    assert second.summary.figures["map"]["new_images"] == 2
    for name, pose in before.items():
        np.testing.assert_array_equal(poses(second)[name], pose)
    shutil.copy(square.images / square.names[0], photos.parent / square.names[5])
    with pytest.raises(UsageError, match="another photo has the name"):
        reconstruct.extend(second.output, photos.parent / square.names[5])
    with pytest.raises(UsageError, match="no run here"):
        reconstruct.extend(photos, new)


def test_settings_that_do_not_go_together(run: Run) -> None:
    for wrong, words in (
        ({"map__start": "previous", "map__method": "global"}, "goes with `method: incremental`"),
        ({"map__fixed": True}, "say which model"),
        ({"map__method": "auto", "map__options": {"min_num_matches": 9}}, "name it in place"),
        ({"map__start": "nowhere"}, "no COLMAP model here"),
    ):
        with pytest.raises(UsageError, match=words):
            run(**wrong)


@pytest.mark.parametrize(("images", "method"), [(4, "global"), (5, "incremental")])
def test_auto_decides_by_the_number_of_photos(run: Run, images: int, method: str) -> None:
    figures = run(map__method="auto", map__auto_images=images).summary.figures["map"]
    assert (figures["method"], figures["registered_images"]) == (method, 4)


KILLED = """
import os, signal, sys
from reconstruct.__main__ import main
from reconstruct.colmap import Snapshots

survived, *arguments = sys.argv[1:]
keep, calls = Snapshots.keep, 0

def die(snapshots):
    global calls
    calls += 1
    if calls > int(survived):
        os.kill(os.getpid(), signal.SIGKILL)
    keep(snapshots)

Snapshots.keep = die
main(["run", *arguments, "-q"])
"""


def test_mapping_that_was_killed_goes_on_from_its_snapshot(
    square: SyntheticDataset,
    chain: Path,
    finished: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    output = tmp_path / "out"
    arguments = [str(chain), "--images", str(square.images), "--output", str(output)]
    arguments += ["--set", f"dataset.cameras='{square.reference}'"]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, "2", *arguments, "--set", "map.snapshot_images=1"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (output / "sparse").exists()
    assert colmap.read_model(output / "mapping" / "model").num_reg_images() == 4
    cameras = {"dataset.cameras": str(square.reference)}
    with caplog.at_level("INFO", "reconstruct"):
        found = reconstruct.run(chain, square.images, output, cameras, verbosity=-1)
    assert "goes on from a snapshot of 4 images" in caplog.text
    assert not (output / "mapping").exists()
    metrics = evaluate_output(output, square.reference)
    unkilled = evaluate_output(Path(shutil.copytree(finished, tmp_path / "f")), square.reference)
    assert metrics.registered == unkilled.registered == 6
    assert metrics.position_max == pytest.approx(unkilled.position_max, abs=0.005)
    assert found.summary.figures["map"]["points"] == pytest.approx(
        colmap.read_model(finished / "sparse").num_points3D(), rel=0.02
    )


def test_snapshots_of_another_mapping_are_not_gone_on_from(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    run()
    folder = tmp_path / "out" / "mapping"
    shutil.copytree(tmp_path / "out" / "sparse", folder / "model")
    (folder / "fingerprint.txt").write_text("of other settings")
    shutil.rmtree(tmp_path / "out" / "sparse")
    found = run()
    assert found.summary.figures["map"]["registered_images"] == 4
    assert not folder.exists()
