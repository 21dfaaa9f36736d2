"""The displacement graph, worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from builders import alignment, index

from reconstruct.refinement import PairAlignment, RefineConfig, Refined, refine_keypoints, solve

CONFIG = RefineConfig()
PAIRS = [("a", "b"), ("b", "c"), ("a", "c")]


def refine(alignments: dict[tuple[str, str], PairAlignment], **settings: Any) -> Refined:
    """Images a, b, c with one keypoint each at the origin, matched as the alignments say."""
    keypoints = {name: np.zeros((1, 2)) for name in "abc"}
    matches = {pair: index((0, 0)) for pair in alignments}
    return refine_keypoints(keypoints, matches, alignments, CONFIG.model_copy(update=settings))


def test_two_keypoints_share_the_way() -> None:
    # delta_b - delta_a = (2, 0), and both stay as near to where they were as they can: -1 and 1.
    found = refine({("a", "b"): alignment([[2.0, 0.0]])})
    np.testing.assert_allclose(found.displacement["a"], [[-1, 0]], atol=0.01)
    np.testing.assert_allclose(found.displacement["b"], [[1, 0]], atol=0.01)
    assert found.refined["a"].tolist() == [True]
    assert found.refined["c"].tolist() == [False]
    assert found.residuals_px.max() < 0.01


def test_the_affinity_carries_displacements_over() -> None:
    # delta_b = 2 delta_a + (5, 0), at least length.
    found = refine({("a", "b"): alignment([[5.0, 0.0]], 2 * np.eye(2))})
    np.testing.assert_allclose(found.displacement["a"], [[-2, 0]], atol=0.01)
    np.testing.assert_allclose(found.displacement["b"], [[1, 0]], atol=0.01)


def test_a_loop_is_closed() -> None:
    # a -> b (1, 0), b -> c (1, 0), a -> c (2, 0): -1, 0, 1.
    steps = {PAIRS[0]: [[1.0, 0.0]], PAIRS[1]: [[1.0, 0.0]], PAIRS[2]: [[2.0, 0.0]]}
    found = refine({pair: alignment(step) for pair, step in steps.items()})
    for name, x in zip("abc", (-1, 0, 1), strict=True):
        np.testing.assert_allclose(found.displacement[name], [[x, 0]], atol=0.01)


def test_the_surer_alignment_wins() -> None:
    # The loop does not close by 0.3 px; two alignments are sure, the third is not.
    found = refine(
        {
            PAIRS[0]: alignment([[1.0, 0.0]]),
            PAIRS[1]: alignment([[1.0, 0.0]]),
            PAIRS[2]: alignment([[2.3, 0.0]], sigma_px=2.0),
        }
    )
    step = found.displacement["c"] - found.displacement["a"]
    np.testing.assert_allclose(step, [[2.0, 0.0]], atol=0.02)


def test_what_contradicts_itself_or_moves_too_far_is_not_refined() -> None:
    far = refine({("a", "b"): alignment([[40.0, 0.0]])}, prior_sigma_px=100.0)
    assert not far.refined["a"].any()
    np.testing.assert_array_equal(far.displacement["a"], 0)
    against = refine(
        {pair: alignment([[4.0, 0.0]]) for pair in (("a", "b"), ("b", "c"))}
        | {("a", "c"): alignment([[-4.0, 0.0]])}
    )
    assert against.residuals_px.max() > 1


def test_unaligned_matches_stay_and_move_nothing() -> None:
    found = refine({("a", "b"): alignment([[2.0, 0.0]], aligned=[False])})
    np.testing.assert_array_equal(found.displacement["a"], 0)
    assert not found.refined["a"].any()
    assert found.kept["a", "b"].tolist() == [True]


def two_in_b(distance_px: float) -> Refined:
    """One keypoint of a, two of b; a - b0, a - c, c - b1: a track that holds both of b.

    b1 starts ``distance_px`` from b0, and no alignment moves anything.
    """
    keypoints = {
        "a": np.zeros((1, 2)),
        "b": np.array([[0.0, 0.0], [distance_px, 0.0]]),
        "c": np.zeros((1, 2)),
    }
    matches = {("a", "b"): index((0, 0)), ("a", "c"): index((0, 0)), ("b", "c"): index((1, 0))}
    alignments = {pair: alignment([[0.0, 0.0]]) for pair in matches}
    return refine_keypoints(keypoints, matches, alignments, CONFIG)


def test_a_track_with_two_keypoints_of_one_image_is_split() -> None:
    kept = two_in_b(20.0).kept
    assert [kept[pair].tolist() for pair in sorted(kept)] == [[True], [True], [False]]


def test_a_point_found_twice_is_one_track() -> None:
    kept = two_in_b(1.0).kept
    assert all(rows.all() for rows in kept.values())


def test_keypoints_that_alignment_brings_together_are_one_point() -> None:
    # b1 was detected 4 px off and matched with a as well: alignment says so.
    keypoints = {"a": np.zeros((2, 2)), "b": np.array([[0.0, 0.0], [4.0, 0.0]])}
    keypoints |= {"c": np.zeros((1, 2))}
    matches = {("a", "b"): index((0, 0)), ("a", "c"): index((0, 0)), ("b", "c"): index((1, 0))}
    alignments = {pair: alignment([[0.0, 0.0]]) for pair in matches}
    alignments["b", "c"] = alignment([[4.0, 0.0]])
    found = refine_keypoints(keypoints, matches, alignments, CONFIG)
    assert all(rows.all() for rows in found.kept.values())
    places = keypoints["b"] + found.displacement["b"]
    assert np.abs(places[0] - places[1]).max() < 0.1


def test_nothing_to_solve() -> None:
    found = refine({})
    assert found.residuals_px.shape == (0,)
    assert all(not rows.any() for rows in found.refined.values())
    none = refine_keypoints({}, {}, {}, CONFIG)
    assert none.displacement == {}
    empty = {("a", "b"): alignment([])}
    both = {name: np.zeros((0, 2)) for name in "ab"}
    assert not len(refine_keypoints(both, {("a", "b"): index()}, empty, CONFIG).kept["a", "b"])


def test_tracks_in_groups_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    count = 60
    keypoints = {name: rng.uniform(0, 1000, (count, 2)) for name in "abc"}
    same = np.repeat(np.arange(count, dtype=np.uint32)[:, None], 2, axis=1)
    matches = dict.fromkeys(PAIRS, same)
    alignments = {pair: alignment(rng.normal(0, 1, (count, 2)).tolist()) for pair in PAIRS}
    whole = refine_keypoints(keypoints, matches, alignments, CONFIG)
    monkeypatch.setattr(solve, "GROUP", 7)
    parts = refine_keypoints(keypoints, matches, alignments, CONFIG)
    for name in "abc":
        np.testing.assert_allclose(whole.displacement[name], parts.displacement[name], atol=1e-9)
