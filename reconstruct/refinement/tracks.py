"""Tracks of the match graph, split where they would join two points of one image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


def split_tracks(
    image_of: NDArray[Any],
    positions: NDArray[Any],
    first: NDArray[Any],
    second: NDArray[Any],
    score: NDArray[Any],
    duplicate_px: float,
) -> NDArray[np.bool_]:
    """Select matches so that no track joins two different points of one image.

    Matches join keypoints into tracks, the most trusted first (as in Kruskal's spanning forest). A
    match is cut if it would bring together keypoints of one image that lie more than
    ``duplicate_px`` apart in x or y. Closer ones are one point that was detected twice, and may
    stay. Matches of equal score are taken in their order.

    Args:
        image_of: (N,) image of every keypoint.
        positions: (N, 2) positions of the keypoints after alignment.
        first: (E,) first keypoint of every match.
        second: (E,) second keypoint of every match.
        score: (E,) trust in every match.
        duplicate_px: Largest distance of two detections of one point.

    Returns:
        (E,) bool, the matches that are kept.
    """
    parent = list(range(len(image_of)))
    seen: list[dict[int, Box] | None] = [None] * len(image_of)
    owner, position = image_of.tolist(), positions.tolist()
    ends = list(zip(first.tolist(), second.tolist(), strict=True))

    def root(x: int) -> int:
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        return x

    def boxes(x: int) -> dict[int, Box]:
        return seen[x] or {owner[x]: (*position[x], *position[x])}

    keep = np.zeros(len(ends), np.bool_)
    for edge in np.argsort(-score, kind="stable").tolist():
        a, b = root(ends[edge][0]), root(ends[edge][1])
        if a != b:
            large, small = boxes(a), boxes(b)
            if len(large) < len(small):
                a, b, large, small = b, a, small, large
            joined = _join(large, small, duplicate_px)
            if joined is None:
                continue
            large.update(joined)
            parent[b], seen[a], seen[b] = a, large, None
        keep[edge] = True
    return keep


def _join(large: dict[int, Box], small: dict[int, Box], limit_px: float) -> dict[int, Box] | None:
    """The boxes of ``small``, grown by those that ``large`` has of the same images; None if one
    becomes larger than the limit."""
    joined: dict[int, Box] = {}
    for image, box in small.items():
        other = large.get(image, box)
        left, top = min(box[0], other[0]), min(box[1], other[1])
        right, bottom = max(box[2], other[2]), max(box[3], other[3])
        if max(right - left, bottom - top) > limit_px:
            return None
        joined[image] = (left, top, right, bottom)
    return joined
