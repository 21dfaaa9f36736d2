"""Tracks are split where they would join two points of one image, and nowhere else."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from reconstruct.refinement import split_tracks

# Keypoints 0 and 1 lie in image 0, 2 in image 1, 3 in image 2: a chain 0 - 2 - 3 - 1.
IMAGE_OF = np.array([0, 0, 1, 2])
FIRST, SECOND = np.array([0, 2, 1]), np.array([2, 3, 3])


def split(x_of_1: float, score: list[float]) -> list[bool]:
    positions = np.array([[10.0, 10.0], [x_of_1, 10.0], [0.0, 0.0], [0.0, 0.0]])
    return split_tracks(IMAGE_OF, positions, FIRST, SECOND, np.array(score), 1.5).tolist()


def test_the_least_trusted_match_is_cut() -> None:
    assert split(30.0, [3.0, 2.0, 1.0]) == [True, True, False]
    assert split(30.0, [3.0, 1.0, 2.0]) == [True, False, True]
    assert split(30.0, [1.0, 2.0, 3.0]) == [False, True, True]


def test_one_point_found_twice_is_no_conflict() -> None:
    assert split(11.0, [3.0, 2.0, 1.0]) == [True, True, True]


def test_duplicates_do_not_creep() -> None:
    # Five keypoints of image 0, each 1 px from the next, all matched with one keypoint of image 1.
    positions = np.array([[0.0, 0.0], *([float(i), 0.0] for i in range(5))])
    keep = split_tracks(
        np.array([1, 0, 0, 0, 0, 0]),
        positions,
        np.arange(1, 6),
        np.zeros(5, int),
        np.arange(5, 0, -1),
        1.5,
    )
    assert keep.tolist() == [True, True, False, False, False]


def test_equal_scores_keep_their_order() -> None:
    assert split(30.0, [1.0, 1.0, 1.0]) == [True, True, False]


def test_no_match() -> None:
    nothing = np.zeros(0, int)
    assert not len(split_tracks(IMAGE_OF, np.zeros((4, 2)), nothing, nothing, nothing, 1.5))


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(0, 40)),
        min_size=1,
        max_size=12,
    ),
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11), st.integers(0, 5)), max_size=30),
)
def test_no_track_has_two_places_of_an_image(
    keypoints: list[tuple[int, int, int]], matches: list[tuple[int, int, int]]
) -> None:
    rows = np.array(keypoints)
    image, place, count = rows[:, 0], rows[:, 1:] / 4, len(rows)
    edges = np.array(matches, int).reshape(-1, 3)
    edges = edges[(edges[:, :2] < count).all(axis=1)]
    keep = split_tracks(image, place, *edges.T, 1.5)
    kept = edges[keep]
    graph = coo_array((np.ones(len(kept)), (kept[:, 0], kept[:, 1])), shape=(count, count))
    _, track = connected_components(graph, directed=False)
    for label in set(track):
        for one in set(image[track == label]):
            spread = np.ptp(place[(track == label) & (image == one)], axis=0)
            assert spread.max() <= 1.5
    # A match that was cut would join what may not be joined; one inside of a track is kept.
    assert (track[edges[~keep, 0]] != track[edges[~keep, 1]]).all()
