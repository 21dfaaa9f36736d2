"""Selection of keypoints, with numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from reconstruct.errors import ImageError
from reconstruct.features.selection import drop_masked, keep_best
from reconstruct.types import LocalFeatures


def _features(points: list[tuple[float, float]], scores: list[float]) -> LocalFeatures:
    count = len(points)
    return LocalFeatures(
        keypoints=np.array(points, np.float32).reshape(count, 2),
        scales=np.ones(count, np.float32),
        scores=np.array(scores, np.float32),
        descriptors=np.eye(max(count, 1), 8, dtype=np.float32)[:count],
        image_size=(6, 4),
    )


def test_mask_drops_what_lies_on_its_zero_pixels() -> None:
    mask = np.full((4, 6), 255, np.uint8)
    mask[1, 2] = 0
    points = [
        (2.0, 1.0),
        (2.99, 1.99),
        (3.0, 1.5),
        (1.99, 1.5),
        (6.0, 1.0),
        (-0.1, 0.0),
        (0.0, 0.0),
    ]
    kept = drop_masked(_features(points, [1.0] * 7), mask)
    np.testing.assert_allclose(kept.keypoints, [(3.0, 1.5), (1.99, 1.5), (0.0, 0.0)])
    assert len(drop_masked(_features([], []), mask)) == 0


def test_mask_of_another_size() -> None:
    with pytest.raises(ImageError, match=r"6 x 4.*\(6, 4\)"):
        drop_masked(_features([], []), np.ones((6, 4), np.uint8))


def test_best_by_score_in_the_old_order() -> None:
    features = _features([(0, 0), (1, 0), (2, 0), (3, 0)], [1, 4, 4, 2])
    assert keep_best(features, max_keypoints=2).keypoints[:, 0].tolist() == [1, 2]
    assert keep_best(features, max_keypoints=1).keypoints[:, 0].tolist() == [
        1
    ]  # the first of equals
    assert keep_best(features, score_threshold=2).keypoints[:, 0].tolist() == [1, 2, 3]
    assert len(keep_best(features)) == 4


def test_spreading_keeps_the_best_of_a_neighbourhood() -> None:
    features = _features([(0, 0), (1, 0), (2, 0), (3, 0), (5.5, 0)], [2, 3, 4, 1, 1])
    # 2 bans 1 and 3; 0 is 2 px from the kept one, and 1 no longer counts.
    kept = keep_best(features, min_distance_px=1.5)
    assert kept.keypoints[:, 0].tolist() == [0, 2, 5.5]
    two = keep_best(features, min_distance_px=1.5, max_keypoints=2)
    assert two.keypoints[:, 0].tolist() == [0, 2]
    assert len(keep_best(_features([], []), min_distance_px=1.5, max_keypoints=2)) == 0
