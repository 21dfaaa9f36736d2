"""Which images are paired, by hand-worked examples."""

from __future__ import annotations

import numpy as np
import pytest

from reconstruct.geometry import Float64
from reconstruct.stages.pair import exhaustive_pairs, pose_pairs, sequential_pairs


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
