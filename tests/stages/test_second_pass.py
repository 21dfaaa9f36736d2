"""A finished model's keypoints aligned again, on the rendered square with exact truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reconstruct
from reconstruct import colmap
from reconstruct.datasets.synthetic import SyntheticDataset
from reconstruct.evaluation.poses import scene_errors_deg
from reconstruct.images import read_image
from reconstruct.stages import map as map_stage
from reconstruct.stages.second_pass import SecondPassConfig, pairs_to_align, second_pass


@pytest.fixture(scope="module")
def coarse(finished: Path) -> colmap.Reconstruction:
    """The square's model with keypoints that are off by a pixel or two. Not to be changed."""
    model, rng = colmap.read_model(finished / "sparse"), np.random.default_rng(0)
    tracks = colmap.Tracks(model)
    keypoints = {n: tracks.keypoints(n) for n in tracks.names}
    noisy = {n: xy + rng.uniform(-1.5, 1.5, xy.shape) for n, xy in keypoints.items()}
    return colmap.with_observations(model, noisy, {n: tracks.points(n) for n in tracks.names})


def run(
    model: colmap.Reconstruction, square: SyntheticDataset, **settings: Any
) -> tuple[colmap.Reconstruction, list[str]]:
    """The model after the second pass, and the photos that it read."""
    read: list[str] = []

    def load(name: str) -> Any:
        read.append(name)
        return read_image(square.images / name)

    config = SecondPassConfig(**settings)
    done: list[None] = []
    again = second_pass(model, load, config, advance=lambda: done.append(None))
    assert len(done) == len(pairs_to_align(model, config))
    return again, read


def adjusted_error_deg(model: colmap.Reconstruction, square: SyntheticDataset) -> float:
    """Median relative pose error after a robust adjustment of (a copy of) the model."""
    copy = colmap.Reconstruction(model)
    colmap.adjust_robustly(copy, 0.5, set(copy.cameras), 1)
    truth = colmap.model_poses(colmap.read_model(square.reference))
    return float(np.median(scene_errors_deg(colmap.model_poses(copy), truth)))


def test_keypoints_become_exact_and_missing_observations_are_found(
    coarse: colmap.Reconstruction, square: SyntheticDataset
) -> None:
    again, read = run(coarse, square)
    assert sorted(read) == sorted(square.names)  # each photo once
    assert adjusted_error_deg(again, square) < 0.4 * adjusted_error_deg(coarse, square)
    before, after = (model.compute_num_observations() for model in (coarse, again))
    assert after > 1.05 * before
    moved, tracks = colmap.Tracks(again), colmap.Tracks(coarse)
    for name in square.names:
        count = len(tracks.points(name))
        np.testing.assert_array_equal(moved.points(name)[:count], tracks.points(name))
        new = moved.points(name)[count:]
        assert not set(new.tolist()) & set(tracks.points(name).tolist())  # one each


def test_without_looking_for_more_the_tracks_stay(
    coarse: colmap.Reconstruction, square: SyntheticDataset
) -> None:
    again, _ = run(coarse, square, extend=False)
    before, after = colmap.Tracks(coarse), colmap.Tracks(again)
    for name in square.names:
        np.testing.assert_array_equal(before.points(name), after.points(name))
    assert adjusted_error_deg(again, square) < 0.5 * adjusted_error_deg(coarse, square)


def test_a_model_without_points(coarse: colmap.Reconstruction, square: SyntheticDataset) -> None:
    nothing = {name: np.zeros((0, 2)) for name in square.names}
    none = {name: np.zeros(0, np.int64) for name in square.names}
    again, read = run(colmap.with_observations(coarse, nothing, none), square)
    assert read == []
    assert again.compute_num_observations() == 0
    assert again.num_reg_images() == len(square.names)


@pytest.mark.parametrize(
    "change",
    [
        {"map.robust_loss_px": 0.5},  # nothing was refined before
        {"map.method": "triangulate", "map.reference": "REFERENCE", "map.robust_loss_px": 0.5},
    ],
)
def test_there_is_none_without_a_first(
    change: dict[str, Any],
    chain: Path,
    square: SyntheticDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("second pass")

    monkeypatch.setattr(map_stage, "second_pass", fail)
    reference = str(square.reference)
    settings = {k: reference if v == "REFERENCE" else v for k, v in change.items()}
    settings |= {"map.second_pass": {}, "dataset.cameras": reference}
    run = reconstruct.run(chain, square.images, tmp_path / "out", settings, verbosity=-1)
    assert run.model is not None
