"""Which images are paired, by hand-worked examples."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconstruct.geometry import Float64
from reconstruct.matching.pairs import (
    exhaustive_pairs,
    pose_pairs,
    position_pairs,
    sequential_pairs,
)


def joined(pairs: list[tuple[str, str]]) -> list[str]:
    return ["".join(pair) for pair in pairs]


def test_exhaustive() -> None:
    assert joined(exhaustive_pairs("cab")) == ["ab", "ac", "bc"]
    assert exhaustive_pairs([]) == exhaustive_pairs(["a"]) == []


@pytest.mark.parametrize(
    ("overlap", "quadratic", "loop_every", "expected"),
    [
        (1, False, None, "ab bc cd de ef"),
        (2, False, None, "ab ac bc bd cd ce de df ef"),
        (99, False, None, "ab ac ad ae af bc bd be bf cd ce cf de df ef"),
        # steps 1 and 2 of the overlap, then 1, 2 and 4
        (2, True, None, "ab ac ae bc bd bf cd ce de df ef"),
        # a, c and e are matched with each other
        (1, False, 2, "ab ac ae bc cd ce de ef"),
        (1, False, 6, "ab bc cd de ef"),
    ],
)
def test_sequential(overlap: int, quadratic: bool, loop_every: int | None, expected: str) -> None:
    found = sequential_pairs("fedcba", overlap, quadratic, loop_every)
    assert joined(found) == expected.split()


def test_sequential_of_nothing() -> None:
    assert sequential_pairs([], 3, True, 1) == sequential_pairs(["a"], 3, True, 1) == []


def test_an_overlap_beyond_all_images_costs_nothing() -> None:
    names = [f"{i:02d}" for i in range(20)]
    everything = exhaustive_pairs(names)
    assert sequential_pairs(names, 10**12) == everything
    assert sequential_pairs(names, 10**12, quadratic=True) == everything
    assert sequential_pairs(names, 1, loop_every=10**12) == list(pairwise(names))
    assert pose_pairs({name: look(i, 0) for i, name in enumerate(names)}, 10**12) == everything


def test_settings_that_mean_nothing() -> None:
    for wrong in ({"overlap": 0}, {"loop_every": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            sequential_pairs("abc", **wrong)  # type: ignore[arg-type]


def look(x: float, angle_deg: float) -> Float64:
    """(3, 4) cam_from_world of a camera at (x, 0, 0) that looks along z turned about y."""
    a = np.radians(angle_deg)
    rotation = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    return np.column_stack([rotation, -rotation @ [x, 0, 0]])


def test_poses_pair_the_nearest_that_look_a_similar_way() -> None:
    poses = {"a": look(0, 0), "b": look(1, 10), "c": look(3, -20), "d": look(0.5, 180)}
    assert joined(pose_pairs(poses, 1, 45)) == ["ab", "bc"]  # a-b, b-a, c-b; d looks away
    assert joined(pose_pairs(poses, 9, 45)) == ["ab", "ac", "bc"]
    assert joined(pose_pairs(poses, 9, 25)) == ["ab", "ac"]  # b and c: 30 degrees apart
    assert joined(pose_pairs(poses, 9, 180)) == ["ab", "ac", "ad", "bc", "bd", "cd"]
    assert joined(pose_pairs(poses, 1, 180)) == ["ad", "bc", "bd"]  # a-d, b-d, c-b, d-a
    assert pose_pairs({}, 3, 45) == pose_pairs({"a": look(0, 0)}, 3, 45) == []


def test_the_first_of_equally_near_ones() -> None:
    row = {name: look(x, 0) for name, x in zip("abcde", (0, 1, 2, 1, 1), strict=True)}
    # b, d and e stand in one place: a and c take b, b takes d, d and e take b.
    assert joined(pose_pairs(row, 1)) == ["ab", "bc", "bd", "be"]


NAMES = st.lists(st.text(max_size=3), max_size=12)


def assert_sound(pairs: list[tuple[str, str]], names: list[str]) -> None:
    assert pairs == sorted(set(pairs)), "sorted, none twice"
    assert all(first < second for first, second in pairs)
    assert {name for pair in pairs for name in pair} <= set(names)


@given(NAMES)
def test_exhaustive_pairs_of_any_names(names: list[str]) -> None:
    pairs = exhaustive_pairs(names)
    assert_sound(pairs, names)
    assert len(pairs) == math.comb(len(set(names)), 2)


@given(NAMES, st.integers(1, 2**70), st.booleans(), st.none() | st.integers(1, 2**70))
def test_sequential_pairs_of_any_names(
    names: list[str], overlap: int, quadratic: bool, loop_every: int | None
) -> None:
    pairs = sequential_pairs(names, overlap, quadratic, loop_every)
    assert_sound(pairs, names)
    assert set(pairs) >= set(pairwise(sorted(set(names))))
    assert pairs == sequential_pairs(names[::-1], overlap, quadratic, loop_every)


@given(
    st.dictionaries(
        st.text(max_size=3), st.tuples(st.integers(-3, 3), st.integers(0, 359)), max_size=9
    ),
    st.integers(1, 12),
    st.sampled_from([10.0, 45.0, 180.0]),
)
def test_pose_pairs_of_any_poses(
    placed: dict[str, tuple[int, int]], neighbors: int, angle: float
) -> None:
    poses = {name: look(*place) for name, place in placed.items()}
    pairs = pose_pairs(poses, neighbors, angle)
    assert_sound(pairs, list(poses))
    assert len(pairs) <= neighbors * len(poses)
    assert set(pairs) <= set(pose_pairs(poses, neighbors + 1, angle))


def test_position_pairs_are_the_nearest_on_the_map() -> None:
    places = {"a": (0, 0, 0), "b": (3, 0, 900), "c": (5, 0, 0), "d": (50, 0, 0)}
    positions = {name: np.array(place, np.float64) for name, place in places.items()}
    assert position_pairs(positions, 1) == [("a", "b"), ("b", "c"), ("c", "d")]
    assert position_pairs(positions, 3, 5.0) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert len(position_pairs(positions, 9)) == 6
    assert position_pairs({}, 3) == position_pairs({"a": positions["a"]}, 3) == []


def test_position_pairs_of_photos_at_one_place() -> None:
    positions = {name: np.zeros(3) for name in "abcde"}
    pairs = position_pairs(positions, 2)
    assert_sound(pairs, list(positions))
    assert all(sum(name in pair for pair in pairs) >= 2 for name in positions)
