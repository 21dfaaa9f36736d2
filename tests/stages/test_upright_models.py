"""Models that stand upright: the square, whose z axis is known to be up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from conftest import Command
from PIL import Image

from reconstruct import colmap
from reconstruct.datasets import Dataset
from reconstruct.datasets.synthetic import SyntheticDataset
from reconstruct.errors import UsageError
from reconstruct.evaluation.poses import similarity
from reconstruct.geometry import Float64, projection_center
from reconstruct.stages.upright import UprightConfig, read_gravity


def run(
    command: Command,
    chain: Path,
    square: SyntheticDataset,
    out: Path,
    upright: str,
    images: Path | None = None,
) -> Float64:
    """The poses of the square with a setting ``map.upright``: where their z axis truly points."""
    arguments = ["run", chain, "--images", images or square.images, "--output", out, "-q"]
    arguments += ["--set", f"dataset.cameras={json.dumps(str(square.reference))}"]
    assert command(*arguments, "--set", f"map.upright={upright}").status == 0
    poses = [colmap.model_poses(colmap.read_model(m)) for m in (out / "sparse", square.reference)]
    centers = [np.array([projection_center(p[n]) for n in sorted(poses[0])]) for p in poses]
    assert len(centers[0]) == 6
    return np.asarray(similarity(*centers)[1] @ [0.0, 0.0, 1.0])


def tilt_deg(z: Float64) -> float:
    return float(np.degrees(np.arccos(np.clip(z[2], -1, 1))))


def write_gravity(path: Path, gravity: Mapping[str, Float64]) -> Path:
    rows = [",".join([name, *map(repr, v.tolist())]) for name, v in gravity.items()]
    path.write_text("\n".join(["name,x,y,z", *rows]))
    return path


def test_the_square_stands_upright(
    command: Command, chain: Path, square: SyntheticDataset, tmp_path: Path
) -> None:
    assert tilt_deg(run(command, chain, square, tmp_path / "out", "null")) > 5
    assert tilt_deg(run(command, chain, square, tmp_path / "out", "{}")) < 0.5
    true = colmap.model_poses(colmap.read_model(square.reference))
    gravity = {name: 9.81 * pose[:, :3] @ [0.0, 0.0, -1.0] for name, pose in true.items()}
    gravity[square.names[2]] = np.array([1.0, 0.0, 0.0])
    table = write_gravity(tmp_path / "gravity.csv", gravity)
    setting = f"{{gravity: {table}}}"
    assert tilt_deg(run(command, chain, square, tmp_path / "out", setting)) < 1.0
    aside = {name: pose[:, :3] @ [1.0, 0.0, 0.0] for name, pose in true.items()}
    write_gravity(table, aside)
    z = run(command, chain, square, tmp_path / "out", setting)
    np.testing.assert_allclose(z, [-1, 0, 0], atol=0.02, err_msg="its content counts")


def test_gravity_is_read_from_photos_of_drones(
    command: Command, chain: Path, square: SyntheticDataset, tmp_path: Path
) -> None:
    true = colmap.model_poses(colmap.read_model(square.reference))
    for name, pose in true.items():  # all of them held level from left to right
        pitch = np.degrees(np.arcsin(pose[2, 2]))
        noted = f'drone-dji:GimbalRollDegree="+0.00" drone-dji:GimbalPitchDegree="{pitch:.2f}"'
        with Image.open(square.images / name) as image:
            image.save(tmp_path / name, quality=95, xmp=noted.encode())
    setting = "{gravity: exif}"
    z = run(command, chain, square, tmp_path / "out", setting, images=tmp_path)
    assert tilt_deg(z) < 0.5
    plain = ["run", chain, "--images", square.images, "--output", tmp_path / "other", "-q"]
    outcome = command(*plain, "--set", f"map.upright={setting}")
    assert outcome.status == 2
    assert "none of the photos notes gravity" in outcome.err


def test_up_has_one_source(
    command: Command, chain: Path, square: SyntheticDataset, tmp_path: Path
) -> None:
    arguments = ["run", chain, "--images", square.images, "--output", tmp_path / "out"]
    arguments += ["--set", "map.upright={}", "--set"]
    (tmp_path / "gps.csv").write_text("name,latitude,longitude\nday-00.jpg,47,8\n")
    outcome = command(*arguments, f"dataset.gps.positions={tmp_path / 'gps.csv'}")
    assert outcome.status == 2
    assert "map.upright: dataset.gps says where up is" in outcome.err
    given = f"{{method: triangulate, reference: {square.reference}, upright: {{}}}}"
    outcome = command(*arguments, f"map={given}")
    assert outcome.status == 2
    assert "leave `upright` out" in outcome.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,x,y\na.jpg,1,2\n", "the first line is name,x,y,z"),
        ("name,x,y,z\na.jpg,1,2\n", "line 2: expected a name and three numbers"),
        ("name,x,y,z\n\na.jpg,0,0,0\n", "line 3: expected"),
        ("name,x,y,z\na.jpg,0,nan,1\n", "line 2: expected"),
        ("name,x,y,z\na.jpg,0,down,1\n", "line 2: expected"),
        ("name,x,y,z\nphotos/a.jpg,0,1,0\n", "none of the photos is in this table"),
        ("", "none of the photos"),
    ],
)
def test_a_wrong_table_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "gravity.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        read_gravity(UprightConfig(gravity=str(path)), Dataset(root=tmp_path, names=("a.jpg",)))
    assert str(path) in str(caught.value)
    with pytest.raises(UsageError, match="not a CSV file"):
        read_gravity(UprightConfig(gravity=str(tmp_path)), Dataset(root=tmp_path, names=("a.jpg",)))
