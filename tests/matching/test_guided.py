"""Guided matching: what the filter's matches predict is found, what they do not is not."""

from __future__ import annotations

import numpy as np
import pytest

from reconstruct.matching import create
from reconstruct.matching.config import default_match
from reconstruct.matching.guided import GuidedConfig
from reconstruct.matching.mutual_nn import MutualNNConfig
from reconstruct.types import LocalFeatures, Matches

SIZE = np.array([800.0, 600.0])
PLAIN = MutualNNConfig.model_validate({"filter": {}})
GUIDED = MutualNNConfig.model_validate({"filter": {}, "guided": {}})


def images(noise: float, kinds: bool = False) -> tuple[LocalFeatures, LocalFeatures]:
    """800 points in two images, the second turned and enlarged, and 400 keypoints of others in
    each; descriptors of the same point differ by ``noise``."""
    rng = np.random.default_rng(0)
    points = rng.uniform(0, SIZE, (800, 2))
    turn = 1.2 * np.array([[0.94, -0.34], [0.34, 0.94]])
    both = [points, (points - SIZE / 2) @ turn.T + SIZE / 2 + rng.normal(0, 1, points.shape)]
    vectors = rng.normal(size=(800, 64))
    features = []
    for positions in both:
        descriptors = np.vstack(
            [vectors + noise * rng.normal(size=vectors.shape), rng.normal(size=(400, 64))]
        )
        descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
        features.append(
            LocalFeatures(
                keypoints=np.vstack([positions, rng.uniform(0, SIZE, (400, 2))]).astype(np.float32),
                scales=np.ones(1200, np.float32),
                scores=np.ones(1200, np.float32),
                descriptors=descriptors.astype(np.float32),
                image_size=(800, 600),
                kinds=(np.arange(1200) % 2).astype(np.uint8) if kinds else None,
            )
        )
    return features[0], features[1]


def matches(config: MutualNNConfig, pair: tuple[LocalFeatures, LocalFeatures]) -> Matches:
    matcher = create(config, device="cpu")
    return matcher.match(*(matcher.prepare(features) for features in pair))


def right(found: Matches) -> int:
    return int(((found.indices[:, 0] == found.indices[:, 1]) & (found.indices[:, 0] < 800)).sum())


@pytest.mark.parametrize("kinds", [False, True])
def test_more_right_matches_and_hardly_any_wrong_one(kinds: bool) -> None:
    pair = images(1.4, kinds)
    plain, more = matches(PLAIN, pair), matches(GUIDED, pair)
    assert right(more) > 1.3 * right(plain) > 100
    assert right(more) > 0.95 * len(more)
    # Those of the filter stay, sorted, and no keypoint is matched twice.
    assert {*map(tuple, plain.indices.tolist())} <= {*map(tuple, more.indices.tolist())}
    for column in more.indices.T:
        assert len(np.unique(column)) == len(column)
    assert (np.diff(more.indices[:, 0].astype(int)) > 0).all()
    if kinds:
        assert (pair[0].kinds[more.indices[:, 0]] == pair[1].kinds[more.indices[:, 1]]).all()


def test_descriptors_that_say_nothing_add_few() -> None:
    """``chance`` bounds how many keypoints get a match by accident."""
    pair = images(0.2)
    rng = np.random.default_rng(1)
    descriptors = pair[1].descriptors.copy()
    descriptors[200:] = rng.normal(size=descriptors[200:].shape)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    told = LocalFeatures(
        **{
            name: getattr(pair[1], name) for name in ("keypoints", "scales", "scores", "image_size")
        },
        descriptors=descriptors.astype(np.float32),
    )
    plain, more = matches(PLAIN, (pair[0], told)), matches(GUIDED, (pair[0], told))
    assert right(plain) > 150
    assert len(more) - len(plain) <= 2 * GuidedConfig().chance * 1200


def test_without_matches_there_is_nothing_to_go_by() -> None:
    pair = images(50.0)
    assert len(matches(GUIDED, pair)) == len(matches(PLAIN, pair)) < 12
    empty = LocalFeatures.empty((800, 600), 64)
    assert len(matches(GUIDED, (pair[0], empty))) == 0


def test_it_needs_the_filter() -> None:
    with pytest.raises(ValueError, match="needs `filter`"):
        MutualNNConfig.model_validate({"guided": {}})
    assert "guided" not in default_match().identity()
