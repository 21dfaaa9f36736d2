"""Which candidate becomes the pose."""

from __future__ import annotations

import math

from reconstruct.indoor.choice import ScoredPose, choose


def candidate(
    image: str, distance: float | None, inliers: int = 10, method: int = 0, index: int = 0
) -> ScoredPose:
    return ScoredPose(image=image, distance=distance, inliers=inliers, method=method, index=index)


def test_two_methods_that_agree_on_an_image_outvote_the_best_candidate() -> None:
    best = candidate("a", 0.4)  # similarity 2.5
    agreeing = [candidate("b", 0.5), candidate("b", 0.45, method=1)]  # 2 + 2.22
    assert choose([best, *agreeing], "union") == best
    assert choose([best, *agreeing], "sum_by_image") == agreeing[1]


def test_one_method_of_one_candidate_an_image_is_a_union() -> None:
    found = [candidate("a", 0.6), candidate("b", 0.5, 7, index=1), candidate("c", 0.7, index=2)]
    assert choose(found, "sum_by_image") == choose(found, "union") == found[1]


def test_without_judgement_most_inliers_decide() -> None:
    for distance in (None, math.inf):
        found = [candidate("a", distance, 8), candidate("b", distance, 9, method=1)]
        assert choose(found, "union") == choose(found, "sum_by_image") == found[1]
    judged = [candidate("a", math.inf, 90), candidate("b", 1.4, 5)]
    assert choose(judged, "union") == choose(judged, "sum_by_image") == judged[1]


def test_equals_and_nothing() -> None:
    equal = [candidate("a", 0.0, method=1), candidate("a", 0.0)]
    assert choose(equal, "union") == choose(equal, "sum_by_image") == equal[1]
    assert choose([], "union") is None
    assert choose([], "sum_by_image") is None
