"""Which images are matched with which, from their names or poses alone.

All functions return sorted pairs of names, the smaller name first, each once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, takewhile

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from reconstruct.geometry import projection_center
from reconstruct.storage.pairs import ordered
from reconstruct.types import ImagePair


def exhaustive_pairs(names: Sequence[str]) -> list[ImagePair]:
    """All pairs of ``names``, n (n - 1) / 2 of them."""
    return list(combinations(sorted(set(names)), 2))  # of sorted names: sorted


def sequential_pairs(
    names: Sequence[str],
    overlap: int = 10,
    quadratic: bool = False,
    loop_every: int | None = None,
) -> list[ImagePair]:
    """Pairs of neighbours in the sorted order of names, for videos.

    Args:
        names: N image names.
        overlap: each image is paired with so many successors.
        quadratic: also with those at distances 2, 4, 8 ... up to 2 ** overlap, as COLMAP does.
        loop_every: every n-th image is also paired with every other n-th image, which closes loops.
            None: no loops.

    Raises:
        ValueError: ``overlap`` or ``loop_every`` is less than 1.
    """
    if overlap < 1 or (loop_every is not None and loop_every < 1):
        raise ValueError(f"expected at least 1, got {overlap=}, {loop_every=}")
    names = sorted(set(names))
    count = len(names)
    steps = set(range(1, min(overlap, count - 1) + 1))
    if quadratic:
        powers = (2**power for power in range(min(overlap, count.bit_length()) + 1))
        steps |= set(takewhile(lambda step: step < count, powers))
    pairs: list[ImagePair] = []
    for i, name in enumerate(names):
        others = {i + step for step in steps if i + step < count}
        if loop_every is not None and i % loop_every == 0:
            others.update(range(i + loop_every, count, loop_every))
        pairs.extend((name, names[j]) for j in sorted(others))
    return pairs


def frame_pairs(
    frames: Mapping[str, str],
    overlap: int = 10,
    quadratic: bool = False,
    loop_every: int | None = None,
) -> list[ImagePair]:
    """`sequential_pairs` for cameras that are mounted together.

    Args:
        frames: image name -> frame, the same for images taken at the same time; sorted, frames are
            in the order of time.
        overlap: each frame is paired with so many successors, each image of one with each of the
            other; so are the images of one frame.
        quadratic: see `sequential_pairs`.
        loop_every: see `sequential_pairs`, in frames.
    """
    members: dict[str, list[str]] = {}
    for name in sorted(frames):
        members.setdefault(frames[name], []).append(name)
    pairs = {pair for names in members.values() for pair in combinations(names, 2)}
    for first, second in sequential_pairs(list(members), overlap, quadratic, loop_every):
        pairs |= {ordered(a, b) for a in members[first] for b in members[second]}
    return sorted(pairs)


def pose_pairs(
    poses: Mapping[str, NDArray[np.float64]], neighbors: int = 20, max_angle_deg: float = 45.0
) -> list[ImagePair]:
    """Every image with the nearest of those that look in a similar direction.

    Args:
        poses: name -> (3, 4) cam_from_world.
        neighbors: how many for each image, by the distance of camera centres.
        max_angle_deg: images whose optical axes differ by more are not paired.
    """
    names = sorted(poses)
    centers = np.array([projection_center(poses[name]) for name in names]).reshape(-1, 3)
    directions = np.array([poses[name][2, :3] for name in names]).reshape(-1, 3)  # optical axes
    pairs: set[ImagePair] = set()
    for i, name in enumerate(names):
        angle = np.degrees(np.arccos(np.clip(directions @ directions[i], -1, 1)))
        allowed = np.flatnonzero(angle <= max_angle_deg)
        allowed = allowed[allowed != i]
        distance = np.linalg.norm(centers[allowed] - centers[i], axis=1)
        if len(allowed) > neighbors:  # sort only those as near as the last that is taken
            near = distance <= np.partition(distance, neighbors - 1)[neighbors - 1]
            allowed, distance = allowed[near], distance[near]
        order = np.argsort(distance, kind="stable")[:neighbors]
        pairs.update(ordered(name, names[j]) for j in allowed[order])
    return sorted(pairs)


def position_pairs(
    positions: Mapping[str, NDArray[np.float64]],
    neighbors: int = 20,
    max_distance_m: float | None = None,
) -> list[ImagePair]:
    """Every image with those that were taken nearest to it, seen on a map.

    Args:
        positions: name -> (3,) metres east, north and up; altitudes, which are seldom exact, do not
            count.
        neighbors: how many for each image.
        max_distance_m: images farther apart are not paired; None: any.
    """
    names = sorted(positions)
    plane = np.array([positions[name][:2] for name in names], np.float64).reshape(-1, 2)
    if len(names) < 2:
        return []
    limit = np.inf if max_distance_m is None else np.nextafter(max_distance_m, np.inf)
    count = min(neighbors + 1, len(names))  # the image itself is among its nearest
    _, nearest = cKDTree(plane).query(plane, count, distance_upper_bound=limit)
    pairs: set[ImagePair] = set()
    for i, row in enumerate(nearest.tolist()):
        others = [j for j in row if j not in (i, len(names))][:neighbors]
        pairs.update(ordered(names[i], names[j]) for j in others)
    return sorted(pairs)
