"""The last bundle adjustment of a model, on keypoints whose errors are known."""

from __future__ import annotations

import copy
from typing import Literal

import numpy as np
import pytest
from surrounded import surrounded

from reconstruct import colmap
from reconstruct.evaluation.poses import similarity


@pytest.fixture(scope="module")
def truth() -> colmap.Reconstruction:
    """Ten images of one camera around 200 points, of which each sees most."""
    return surrounded("PINHOLE", [1280, 1280, 512, 384])


def adjusted(
    truth: colmap.Reconstruction,
    sigmas_px: tuple[float, ...],
    loss_px: float | Literal["auto"],
    seed: int = 0,
) -> colmap.Reconstruction:
    """The model adjusted to keypoints off by one of some standard deviations, drawn for each."""
    rng = np.random.default_rng(seed)
    model = copy.deepcopy(truth)
    for image in model.images.values():
        for index in image.get_observation_point2D_idxs():
            image.points2D[index].xy += rng.normal(size=2) * rng.choice(sigmas_px)
    colmap.adjust_robustly(model, loss_px, set(model.cameras), threads=1)
    return model


def error(model: colmap.Reconstruction, truth: colmap.Reconstruction) -> float:
    """Root mean square distance of the camera centres from the true ones."""
    found, true = colmap.model_arrays(model).centers, colmap.model_arrays(truth).centers
    scale, rotation, translation = similarity(found, true)
    off = scale * found @ rotation.T + translation - true
    return float(np.sqrt(np.square(off).sum(1).mean()))


def test_the_loss_is_that_of_the_keypoints_errors(truth: colmap.Reconstruction) -> None:
    model = adjusted(truth, (0.1,), 100.0)  # squares, as it were
    assert colmap.efficient_loss_px(model) == pytest.approx(0.2385, rel=0.05)


def test_a_third_of_bad_keypoints_hardly_moves_it(truth: colmap.Reconstruction) -> None:
    model = adjusted(truth, (0.1, 0.1, 1.0), "auto")
    assert 0.2385 < colmap.efficient_loss_px(model) < 0.45


def test_exact_keypoints_have_a_loss_too(truth: colmap.Reconstruction) -> None:
    model = adjusted(truth, (0.0,), "auto")
    assert error(model, truth) < 1e-6
    empty = copy.deepcopy(truth)
    for point in list(empty.points3D):
        empty.delete_point3D(point)
    assert colmap.efficient_loss_px(empty) == colmap.efficient_loss_px(model)


def test_each_keypoint_counts_as_it_is_exact(truth: colmap.Reconstruction) -> None:
    def errors(loss_px: float | Literal["auto"]) -> float:
        models = [adjusted(truth, (0.05, 0.05, 0.5), loss_px, seed) for seed in range(4)]
        return float(np.mean([error(model, truth) for model in models]))

    assert errors("auto") < 0.6 * errors(0.5)
