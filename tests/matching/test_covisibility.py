"""Photos that see the same points, by hand."""

from __future__ import annotations

import numpy as np

from reconstruct.matching.covisibility import (
    covisibility_clusters,
    covisibility_pairs,
    sees_points,
    sharing_pairs,
)

SEEN = {
    "a": np.array([1, 2, 3, -1, -1]),
    "b": np.array([-1, 2, 3]),
    "c": np.array([3, 3, 9]),  # two keypoints on one point count once
    "d": np.array([9]),
    "e": np.array([-1, -1]),
}


def test_most_common_points_first() -> None:
    assert covisibility_pairs(SEEN, 1) == [("a", "b"), ("a", "c"), ("c", "d")]
    assert covisibility_pairs(SEEN, 9) == [("a", "b"), ("a", "c"), ("b", "c"), ("c", "d")]


def test_all_that_share_enough() -> None:
    ids = list(SEEN.values())
    assert sharing_pairs(ids, 1) == sharing_pairs(ids, 0) == [(0, 1), (0, 2), (1, 2), (2, 3)]
    assert sharing_pairs(ids, 2) == [(0, 1)]
    assert sharing_pairs(ids, 3) == sharing_pairs([], 1) == []


def test_against_counting() -> None:
    rng = np.random.default_rng(0)
    seen = {f"{i:02d}": rng.integers(-1, 60, 25) for i in range(12)}
    sets = {name: set(ids[ids >= 0].tolist()) for name, ids in seen.items()}
    expected = set()
    for name in seen:
        others = sorted(set(seen) - {name}, key=lambda o: (-len(sets[name] & sets[o]), o))
        for other in others[:3]:
            if sets[name] & sets[other]:
                expected.add((min(name, other), max(name, other)))
    assert covisibility_pairs(seen, 3) == sorted(expected)


def test_a_model_of_poses_alone_is_seen() -> None:
    assert sees_points(SEEN)
    assert not sees_points({"a": np.array([-1, -1]), "b": np.zeros(0, np.int64)})
    assert not sees_points({})


def test_clusters_are_linked_by_points() -> None:
    assert covisibility_clusters(["d", "a", "b"], SEEN) == [["a", "b"], ["d"]]
    assert covisibility_clusters(["a", "c", "d", "e"], SEEN) == [["a", "c", "d"], ["e"]]


def test_nothing() -> None:
    assert covisibility_pairs({}, 5) == []
    assert covisibility_pairs({"a": np.zeros(0, np.int64)}, 5) == []
    assert covisibility_clusters([], {}) == []
