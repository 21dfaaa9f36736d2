from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

import reconstruct
from reconstruct import colmap
from reconstruct.datasets.synthetic import SyntheticDataset
from reconstruct.errors import ArtifactError
from reconstruct.evaluation.poses import scene_errors_deg

SETTINGS = {
    "name": "refined",
    "dataset": {"format": "folder", "images": "photos"},
    "extract": {"local": {"name": "d2net"}},
    "pair": {"method": "exhaustive"},
    "match": {},
    "verify": {},
    "refine": {"method": "multiview"},
    "map": {"threads": 1, "robust_loss_px": 0.5},
}


@pytest.fixture(scope="module")
def refined(square: SyntheticDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refined")
    (folder / "sfm.yaml").write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
    run(folder, square)
    return folder


def run(
    folder: Path, square: SyntheticDataset, force: Sequence[str] = (), **overrides: object
) -> reconstruct.Run:
    settings = {"dataset.cameras": str(square.reference), **overrides}
    output = folder / "out"
    return reconstruct.run(
        folder / "sfm.yaml", square.images, output, overrides=settings, force=force, verbosity=-1
    )


def test_refinement_brings_the_poses_closer_and_keeps_the_observations(
    refined: Path, square: SyntheticDataset, tmp_path: Path
) -> None:
    shutil.copytree(refined, tmp_path / "raw")
    raw = run(tmp_path / "raw", square, refine=None, **{"map.robust_loss_px": None}).model
    model = colmap.read_model(refined / "out" / "sparse")
    assert raw is not None
    truth = colmap.model_poses(colmap.read_model(square.reference))
    before, after = (
        np.median(scene_errors_deg(colmap.model_poses(m), truth)) for m in (raw, model)
    )
    assert after < 0.5 * before
    assert model.num_reg_images() == raw.num_reg_images() == len(square.names)
    assert model.compute_num_observations() > 0.85 * raw.compute_num_observations()
    # The robust adjustment may let go of an observation, but not leave it in the model.
    assert model.compute_mean_reprojection_error() < 1.0


def test_refinement_resumes_by_pair_and_ends_the_same(
    refined: Path, square: SyntheticDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(refined, tmp_path / "again")
    output = tmp_path / "again" / "out"
    wanted = colmap.database_keypoints(output / "database.db")
    shards = sorted((output / "alignments").glob("part-*.h5"))
    shards[-1].unlink()
    (output / "database.db").unlink()
    from reconstruct.stages import align

    aligned: list[object] = []
    original = align.align_pair
    monkeypatch.setattr(align, "align_pair", lambda *a: (aligned.append(a), original(*a))[1])
    run(tmp_path / "again", square)
    assert 0 < len(aligned) < 15
    verified = reconstruct.plan(
        tmp_path / "again" / "sfm.yaml",
        square.images,
        output,
        {"dataset.cameras": str(square.reference)},
    )
    assert {plan.state for _, plan in verified} == {"done"}
    found = colmap.database_keypoints(output / "database.db")
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    ("folder", "field", "edit", "again", "message"),
    [
        ("geometries", "inliers", lambda rows: rows + 10**6, "align", "name keypoints beyond"),
        ("geometries", "inliers", lambda rows: rows + 10**6, "refine", "name keypoints beyond"),
        ("alignments", "covariance", lambda rows: -rows, "refine", "a covariance that is none"),
        ("alignments", "displacement", lambda rows: rows[:, :1], "refine", r"of shape \(\d+, 1\)"),
    ],
)
def test_what_somebody_edited_is_named_before_it_is_used(
    refined: Path,
    square: SyntheticDataset,
    tmp_path: Path,
    folder: str,
    field: str,
    edit: Callable[[Any], Any],
    again: str,
    message: str,
) -> None:
    shutil.copytree(refined, tmp_path / "edited")
    with h5py.File(tmp_path / "edited" / "out" / folder / "part-00000.h5", "r+") as file:
        edited = edit(file["fields"][field][()])
        del file["fields"][field]
        file["fields"][field] = edited
    with pytest.raises(ArtifactError, match=f"{message}.*--force"):
        run(tmp_path / "edited", square, force=[again])
