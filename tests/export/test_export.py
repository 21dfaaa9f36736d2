from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import Command

from reconstruct import colmap
from reconstruct.datasets.synthetic import SyntheticDataset
from reconstruct.errors import UnknownNameError, UsageError
from reconstruct.export import FORMATS, export


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


def test_an_export_again_replaces_the_first(output: Path) -> None:
    for format_ in FORMATS:
        assert export(output, format_) == export(output, format_)


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


def test_every_registered_format_is_on_the_command_line(command: Command, output: Path) -> None:
    for format_ in FORMATS:
        outcome = command("export", output, "--format", format_)
        assert (outcome.status, Path(outcome.out.strip()).exists()) == (0, True)
