"""One photo's keypoints against photos that stay as they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from builders import AFFINITIES, alignment, around_center, grid, index, photo
from numpy.typing import NDArray

from reconstruct.refinement import Anchors, RefineConfig, anchored, build_pyramid, refine_against

CPU = torch.device("cpu")
CONFIG = RefineConfig()
BLANK = build_pyramid(np.zeros((128, 256, 3), np.uint8), 128, CPU)
"""Shrunk to half: one of its pixels is two of the photo."""


def follow(
    monkeypatch: pytest.MonkeyPatch, displacements: Sequence[list[float]], sigmas: Sequence[float]
) -> anchored.Anchored:
    """Two keypoints; the second has an anchor for each displacement."""
    said = iter(zip(displacements, sigmas, strict=True))

    def align_pair(*arguments: object) -> object:
        displacement, sigma = next(said)
        return alignment([displacement], sigma_px=sigma)

    monkeypatch.setattr(anchored, "align_pair", align_pair)
    one = Anchors(pyramid=BLANK, keypoints=np.zeros((1, 2)), matches=index((1, 0)))
    keypoints = np.array([[5.0, 5.0], [50.0, 60.0]])
    return refine_against(BLANK, keypoints, [one] * len(displacements), CONFIG)


def test_the_photo_goes_all_the_way_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    # 2 pixels of the pyramid are 4 of the photo; where both sides may move it would be 1 each.
    found = follow(monkeypatch, [[2.0, -1.0]], [0.01])
    np.testing.assert_allclose(found.keypoints, [[5, 5], [54, 58]], atol=0.02)
    assert found.refined.tolist() == [False, True]


def test_anchors_are_weighed_and_outvoted(monkeypatch: pytest.MonkeyPatch) -> None:
    # Variances with the model's 0.1 px: 0.02 and 0.04, so 2.0 and 2.3 meet at 2.1.
    pair = follow(monkeypatch, [[2.0, 0.0], [2.3, 0.0]], [0.1, 3**0.5 / 10])
    np.testing.assert_allclose(pair.keypoints[1], [54.2, 60], atol=0.03)
    three = follow(monkeypatch, [[2.0, 0.0], [2.0, 0.0], [-3.0, 0.0]], [0.01] * 3)
    np.testing.assert_allclose(three.keypoints[1], [54, 60], atol=0.1)


def test_contradictions_leave_a_keypoint_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    found = follow(monkeypatch, [[4.0, 0.0], [-4.0, 0.0]], [0.01] * 2)
    np.testing.assert_array_equal(found.keypoints[1], [50, 60])
    assert not found.refined.any()


def test_keypoints_come_to_the_place_that_the_anchors_mean() -> None:
    names = ("shear", "rotation", "farther")
    truth = grid(70)
    noise = np.random.default_rng(1).uniform(-2.5, 2.5, truth.shape)
    query = build_pyramid(photo(np.eye(2), np.zeros(2), gain=0.7, bias=30), None, CPU)
    found = refine_against(query, truth + noise, [_view(name, truth) for name in names], CONFIG)
    error = np.linalg.norm(found.keypoints - truth, axis=1)
    assert found.refined.mean() > 0.9
    assert np.median(error[found.refined]) < 0.05
    np.testing.assert_array_equal(
        found.keypoints[~found.refined], (truth + noise).astype(np.float32)[~found.refined]
    )


def _view(name: str, truth: NDArray[np.float64]) -> Anchors:
    affinity = AFFINITIES[name]
    shift = around_center(affinity)
    return Anchors(
        pyramid=build_pyramid(photo(affinity, shift), None, CPU),
        keypoints=truth @ affinity.T + shift,
        matches=np.repeat(np.arange(len(truth), dtype=np.uint32)[:, None], 2, axis=1),
    )


def test_nothing_to_refine() -> None:
    keypoints = np.array([[3.0, 4.0]])
    none = Anchors(pyramid=BLANK, keypoints=np.zeros((0, 2)), matches=index())
    for anchors in ([], [none]):
        found = refine_against(BLANK, keypoints, anchors, CONFIG)
        np.testing.assert_array_equal(found.keypoints, keypoints)
        assert found.refined.tolist() == [False]
    nowhere = refine_against(BLANK, np.zeros((0, 2)), [none], CONFIG)
    assert nowhere.keypoints.shape == (0, 2)
