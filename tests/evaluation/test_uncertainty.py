"""Is what a model says of its own errors true? On made-up models whose truth is known."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Literal

import numpy as np
import pycolmap
import pytest
from scipy.spatial.transform import Rotation
from surrounded import surrounded

from reconstruct import colmap
from reconstruct.errors import EstimationError
from reconstruct.evaluation.uncertainty import normalised_error, pose_uncertainty

LOSS_PX = 0.5


@pytest.fixture(scope="module")
def truth() -> colmap.Reconstruction:
    """Ten images of one camera around 200 points, of which each sees most."""
    return surrounded("SIMPLE_RADIAL", [1280, 512, 384, 0.05])


def noisy(
    truth: colmap.Reconstruction,
    seed: int,
    constant_cameras: bool,
    loss_px: float | Literal["auto"] = LOSS_PX,
) -> colmap.Reconstruction:
    """The model adjusted to keypoints of which some are 0.05 px off and some half a pixel."""
    rng = np.random.default_rng(seed)
    model = copy.deepcopy(truth)
    sigmas = {point: rng.choice([0.05, 0.5]) for point in model.points3D}
    for image in model.images.values():
        for index in image.get_observation_point2D_idxs():
            seen = image.points2D[index]
            seen.xy = seen.xy + rng.normal(size=2) * sigmas[seen.point3D_id]
    cameras = set(model.cameras) if constant_cameras else set()
    colmap.adjust_robustly(model, loss_px, cameras, threads=1)
    return model


@pytest.mark.parametrize("loss_px", [LOSS_PX, "auto"])
@pytest.mark.parametrize("constant_cameras", [True, False])
def test_errors_are_as_large_as_the_uncertainty_says(
    truth: colmap.Reconstruction, constant_cameras: bool, loss_px: float | Literal["auto"]
) -> None:
    reference = colmap.model_poses(truth)
    errors = []
    for seed in range(5):
        model = noisy(truth, seed, constant_cameras, loss_px)
        found = pose_uncertainty(
            colmap.model_arrays(model),
            colmap.efficient_loss_px(model) if loss_px == "auto" else loss_px,
            adjusted_cameras=() if constant_cameras else set(model.cameras),
        )
        errors.append(normalised_error(found, colmap.model_poses(model), reference))
    most = 1.35 if loss_px == "auto" else 1.2  # a narrow loss has fewer observations to judge by
    assert 0.8 < np.mean(np.array(errors, np.float64)) < most


def test_it_is_in_the_unit_of_the_model_wherever_that_lies(truth: colmap.Reconstruction) -> None:
    model = noisy(truth, 0, constant_cameras=True)
    before = pose_uncertainty(colmap.model_arrays(model), LOSS_PX)
    turn = Rotation.from_euler("xyz", [0.3, -0.2, 1.0])
    unmoved, reference = colmap.model_poses(model), colmap.model_poses(truth)
    moved = pycolmap.Sim3d(10.0, pycolmap.Rotation3d(turn.as_quat()), np.array([5.0, -3.0, 20.0]))
    model.transform(moved)
    after = pose_uncertainty(colmap.model_arrays(model), LOSS_PX)
    np.testing.assert_allclose(after.position_sigmas, 10 * before.position_sigmas, rtol=1e-5)
    np.testing.assert_allclose(after.rotation_sigmas_deg, before.rotation_sigmas_deg, rtol=1e-5)
    error = normalised_error(before, unmoved, reference)
    assert normalised_error(after, colmap.model_poses(model), reference) == pytest.approx(
        error, 1e-5
    )
    assert normalised_error(after, colmap.model_poses(model), {}) is None


def test_an_exact_model_is_certain(truth: colmap.Reconstruction) -> None:
    found = pose_uncertainty(colmap.model_arrays(truth), LOSS_PX)
    assert found.position_sigmas.max() < 1e-6
    assert found.rotation_sigmas_deg.max() < 1e-6


def test_points_with_few_good_keypoints_leave_the_others_their_uncertainty(
    truth: colmap.Reconstruction,
) -> None:
    exact = noisy(truth, 0, True)
    before = pose_uncertainty(colmap.model_arrays(exact), LOSS_PX)
    arrays = colmap.model_arrays(exact)
    off = np.where((arrays.point < 20)[:, None], 3 * LOSS_PX * np.array([1.0, -1.0]), 0.0)
    after = pose_uncertainty(replace(arrays, xy=arrays.xy + off), LOSS_PX)
    np.testing.assert_allclose(after.position_sigmas, before.position_sigmas, rtol=1.0)


def test_what_points_do_not_hold_together_has_none(truth: colmap.Reconstruction) -> None:
    arrays = colmap.model_arrays(truth)
    with pytest.raises(EstimationError, match="it takes three"):
        pose_uncertainty(replace(arrays, names=arrays.names[:2]), LOSS_PX)
    first = arrays.point < 100  # two groups of images that share no point
    apart = first == (arrays.image < 5)
    halves = replace(
        arrays, **{key: getattr(arrays, key)[apart] for key in ("image", "keypoint", "point", "xy")}
    )
    with pytest.raises(EstimationError, match="14 directions"):
        pose_uncertainty(halves, LOSS_PX)
