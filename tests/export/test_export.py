from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import Command

from reconstruct import colmap
from reconstruct.__main__ import main
from reconstruct.datasets.synthetic import SyntheticDataset
from reconstruct.errors import UnknownNameError, UsageError
from reconstruct.export import FORMATS, export
from reconstruct.geometry import projection_center


def test_text_is_the_same_model(output: Path) -> None:
    first, second = colmap.read_model(output / "sparse"), colmap.read_model(export(output, "text"))
    assert colmap.model_summary(first) == colmap.model_summary(second)
    before, after = colmap.model_poses(first), colmap.model_poses(second)
    assert before.keys() == after.keys()
    for name, pose in before.items():
        np.testing.assert_allclose(after[name], pose, atol=1e-12)


def test_ply_holds_every_point(output: Path) -> None:
    path = export(output, "ply")
    header = path.read_bytes().split(b"end_header")[0].decode()
    assert f"element vertex {colmap.read_model(output / 'sparse').num_points3D()}" in header


ORIGIN = {"latitude": 47.0, "longitude": 8.0, "altitude": 400.0}


@pytest.fixture
def located(output: Path) -> Path:
    """The output folder, as if its model had been aligned with GPS."""
    content = {"origin": ORIGIN, "models": [{"aligned": True}]}
    (output / "gps.json").write_text(json.dumps(content))
    return output


def test_an_export_again_replaces_the_first(located: Path) -> None:
    for format_ in FORMATS:
        assert export(located, format_) == export(located, format_)


def test_what_was_computed_in_an_export_is_not_lost(output: Path) -> None:
    computed = export(output, "text") / "stereo" / "depth.bin"
    computed.parent.mkdir()
    computed.write_bytes(b"hours of work")
    with pytest.raises(UsageError, match=r"holds what a new export would not \(stereo/depth.bin\)"):
        export(output, "text")
    assert computed.read_bytes() == b"hours of work"
    assert not list(output.glob("export/*tmp*"))


def test_geojson_places_the_cameras_on_earth(located: Path) -> None:
    found = json.loads(export(located, "geojson").read_text())
    poses = colmap.model_poses(colmap.read_model(located / "sparse"))
    assert [f["properties"]["name"] for f in found["features"]] == list(poses)
    rows = np.array([f["geometry"]["coordinates"] for f in found["features"]])
    metres = colmap.east_north_up(rows[:, [1, 0, 2]], tuple(ORIGIN.values()))
    centers = [projection_center(pose) for pose in poses.values()]
    np.testing.assert_allclose(metres, centers, atol=1e-4)


def test_geojson_needs_a_model_that_is_aligned_with_gps(output: Path) -> None:
    content = {"origin": ORIGIN, "models": [{"aligned": False}]}
    for text in (None, "{}", json.dumps(content)):
        if text is not None:
            (output / "gps.json").write_text(text)
        with pytest.raises(UsageError, match=r"not aligned with GPS .* dataset\.gps="):
            export(output, "geojson")


def test_nothing_to_export(tmp_path: Path) -> None:
    for format_, what in (("ply", "no mapped model"), ("hloc", "no features")):
        with pytest.raises(UsageError, match=what):
            export(tmp_path, format_)
    with pytest.raises(UnknownNameError, match=r"unknown export format 'plly' .*'ply'"):
        export(tmp_path, "plly")


def test_text_cannot_hold_a_space(output: Path) -> None:
    model = colmap.read_model(output / "sparse")
    model.images[model.reg_image_ids()[0]].name = "a photo.jpg"
    shutil.rmtree(output / "sparse")
    colmap.write_model(model, output / "sparse")
    with pytest.raises(UsageError, match=r"cannot hold the name 'a photo\.jpg'"):
        export(output, "text")
    assert not (output / "export" / "text").exists()


def test_photos_that_moved(output: Path, square: SyntheticDataset, tmp_path: Path) -> None:
    for format_ in ("colmap", "gsplat", "nerfstudio"):
        with pytest.raises(UsageError, match=r"day-00\.jpg: no such photo.*as `images`"):
            export(output, format_, tmp_path)
    (output / "run.yaml").unlink()
    with pytest.raises(UsageError, match=r"run\.yaml: does not tell where the photos are"):
        export(output, "gsplat")
    assert export(output, "gsplat", square.images).is_dir()


def test_a_command_prints_the_path_and_nothing_of_colmap(
    output: Path, square: SyntheticDataset, capfd: pytest.CaptureFixture[str]
) -> None:
    (output / "run.yaml").unlink()
    arguments = ["export", str(output), "--format", "gsplat", "--images", str(square.images)]
    assert main(arguments) == 0
    assert capfd.readouterr() == (f"{output / 'export' / 'gsplat'}\n", "")


def test_every_registered_format_is_on_the_command_line(command: Command, located: Path) -> None:
    for format_ in FORMATS:
        outcome = command("export", located, "--format", format_)
        assert (outcome.status, Path(outcome.out.strip()).exists()) == (0, True)
