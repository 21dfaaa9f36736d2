"""Positions by satellite, from the table to the model in metres."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Command
from numpy.typing import NDArray

from reconstruct import colmap
from reconstruct.datasets.synthetic import SyntheticDataset
from reconstruct.geometry import projection_center

ORIGIN = (47.0, 8.0, 400.0)
FACTOR = 20.0
"""Metres that a unit of the square is wide: the scene is then large against 5 mm of noise."""

Table = Callable[..., Path]


def true_positions(square: SyntheticDataset) -> dict[str, NDArray[np.float64]]:
    """Where the square's cameras are, in metres; its z axis points up."""
    poses = colmap.model_poses(colmap.read_model(square.reference))
    return {name: FACTOR * projection_center(pose) for name, pose in poses.items()}


@pytest.fixture
def table(square: SyntheticDataset, tmp_path: Path) -> Table:
    """Writes a table of positions, of which those given are moved by so many metres."""

    def write(moved: dict[str, tuple[float, float, float]] | None = None) -> Path:
        path = tmp_path / "gps.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["name", "latitude", "longitude", "altitude", "accuracy"])
            for name, position in true_positions(square).items():
                at = position + np.array((moved or {}).get(name, (0, 0, 0)))
                writer.writerow([name, *map(repr, colmap.geodetic(at, ORIGIN)[0].tolist()), 0.1])
        return path

    return write


def up_is_z(square: SyntheticDataset) -> bool:
    poses = colmap.model_poses(colmap.read_model(square.reference))
    return bool(np.mean([pose[1, 2] for pose in poses.values()]) < -0.5)


def model_error_m(output: Path, square: SyntheticDataset) -> float:
    """Largest distance of a camera of the model from its true position."""
    origin = json.loads((output / "gps.json").read_text())["origin"]
    truth = true_positions(square)
    poses = colmap.model_poses(colmap.read_model(output / "sparse"))
    rows = colmap.geodetic(
        np.array([projection_center(p) for p in poses.values()]),
        (origin["latitude"], origin["longitude"], origin["altitude"]),
    )
    found = colmap.east_north_up(rows, ORIGIN)
    return float(np.abs(found - [truth[name] for name in poses]).max())


@pytest.mark.parametrize("robust", [None, 0.5])
@pytest.mark.parametrize("altitude", ["auto", "ignore"])
def test_the_model_is_in_metres_whatever_one_position_says(
    command: Command,
    chain: Path,
    square: SyntheticDataset,
    table: Table,
    tmp_path: Path,
    robust: float | None,
    altitude: str,
) -> None:
    assert up_is_z(square)
    name = square.names[2]
    output = tmp_path / "out"
    cameras = f"dataset.cameras={json.dumps(str(square.reference))}"

    def run(*settings: str) -> int:
        arguments = ["run", chain, "--images", square.images, "--output", output, "-q"]
        for setting in (cameras, f"map.robust_loss_px={json.dumps(robust)}", *settings):
            arguments += ["--set", setting]
        return command(*arguments).status

    positions = f"dataset.gps.positions={table({name: (300, -200, 90)})}"
    with_gps = (positions, f"dataset.gps.altitude={altitude}", "pair={method: gps, neighbors: 4}")
    assert run(*with_gps) == 0
    # Without altitudes the model is as level as its cameras are.
    assert model_error_m(output, square) < {"auto": 0.02, "ignore": 0.04}[altitude] * FACTOR
    found = json.loads((output / "gps.json").read_text())["models"][0]
    assert (found["aligned"], found["outliers"]) == (True, [name])
    assert found["altitudes"] == {"auto": "used", "ignore": "not used"}[altitude]
    assert found["rms_horizontal_m"] < 0.01 * FACTOR
    report = (output / "report.html").read_text()
    assert "Cameras and their GPS, from above" in report
    assert "far off: not counted" in report
    before = (output / "sparse" / "images.bin").stat().st_mtime_ns
    assert run(*with_gps) == 0
    assert (output / "sparse" / "images.bin").stat().st_mtime_ns == before, "nothing changed"
    assert run() == 0
    assert not (output / "gps.json").exists(), "the model is no longer in metres"


def test_too_few_positions_leave_the_model_as_it_is_and_say_so(
    command: Command, chain: Path, square: SyntheticDataset, table: Table, tmp_path: Path
) -> None:
    path = table()
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:3]))
    output = tmp_path / "out"
    arguments = ["run", chain, "--images", square.images, "--output", output]
    outcome = command(*arguments, "--set", f"dataset.gps.positions={path}")
    assert outcome.status == 0
    assert outcome.err.count("not aligned with GPS, and not in metres: 3 photos") == 1
    found = json.loads((output / "gps.json").read_text())["models"][0]
    assert found == {"aligned": False, "why": found["why"], "photos": 2}


def test_gps_pairs_without_gps_are_refused(command: Command, chain: Path, photos: Path) -> None:
    arguments = ["run", chain, "--images", photos, "--output", photos / "out"]
    outcome = command(*arguments, "--set", "pair={method: gps}")
    assert outcome.status == 2
    assert "pair.method: gps needs dataset.gps" in outcome.err
    outcome = command(*arguments, "--set", "dataset.gps={}")
    assert outcome.status == 1
    assert "no photo has a position in exif" in outcome.err


def test_a_photo_without_a_position_is_paired_with_all(
    command: Command, chain: Path, square: SyntheticDataset, table: Table, tmp_path: Path
) -> None:
    path = table()
    kept = [line for line in path.read_text().splitlines() if not line.startswith(square.names[0])]
    path.write_text("\n".join(kept))
    arguments = ["run", chain, "--images", square.images, "--output", tmp_path / "out", "-q"]
    arguments += ["--only", "extract,pair"]
    arguments += ["--set", f"dataset.gps.positions={path}"]
    arguments += ["--set", "pair={method: gps, neighbors: 1, overlap: 0}"]
    assert command(*arguments).status == 0
    pairs = [line.split() for line in (tmp_path / "out" / "pairs.txt").read_text().splitlines()]
    assert sum(square.names[0] in pair for pair in pairs) == len(square.names) - 1
    assert len(pairs) < len(square.names) * (len(square.names) - 1) // 2
