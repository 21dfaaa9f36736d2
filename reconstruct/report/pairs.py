"""Pairs of photos worth looking at, with their matches; tracks worth looking at pixel by pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from reconstruct.colmap import ModelArrays
from reconstruct.geometry import Float64
from reconstruct.matching.disambiguation import Disambiguation
from reconstruct.report.content import CloseUp, MatchLine, PairFigure, Picture
from reconstruct.report.figures import count
from reconstruct.report.pictures import patch
from reconstruct.types import ImageArray, ImagePair

LINES = 160
"""Matches drawn on a pair of photos, spread over all."""
CLOSEUPS, CLOSEUP_PHOTOS = 3, 4
CLOSEUP_LENGTH = 3
"""Least photos of a track that is shown at pixel scale."""


def chosen_pairs(verified: Mapping[ImagePair, int]) -> list[tuple[str, ImagePair]]:
    """The verified pairs with most, median and fewest inliers: label and pair."""
    ranked = sorted(verified, key=lambda pair: (-verified[pair], pair))
    if not ranked:
        return []
    picks = {"Most matches": 0, "Median pair": len(ranked) // 2, "Fewest matches": len(ranked) - 1}
    result: list[tuple[str, ImagePair]] = []
    for label, place in picks.items():
        if ranked[place] not in [pair for _, pair in result]:
            result.append((label, ranked[place]))
    return result


def failed_pairs(
    pairs: Sequence[ImagePair],
    verified: Mapping[ImagePair, int],
    matches: Callable[[ImagePair], int],
    looked_at: int = 200,
) -> list[ImagePair]:
    """Matched pairs that no two-view geometry was found for, the most worth a look first.

    Neighbours by name come first, then those with most matches among ``looked_at`` of the others.
    """
    failed = [pair for pair in pairs if pair not in verified]
    names = sorted({name for pair in pairs for name in pair})
    following = set(pairwise(names))
    neighbors = [pair for pair in failed if pair in following]
    others = [pair for pair in failed if pair not in following]
    others = others[:: max(1, len(others) // looked_at)]
    ranked = sorted(neighbors[:looked_at], key=lambda pair: -matches(pair))
    return [*ranked, *sorted(others, key=lambda pair: -matches(pair))]


def removed_pairs(found: Disambiguation) -> list[ImagePair]:
    """Removed pairs, those first whose photos contradict each other most."""
    return sorted(found.removed, key=lambda pair: (-found.conflicts.get(pair, 0.0), pair))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DrawnMatches:
    """left, right: (M, 2) COLMAP pixels of the photos. errors_px: (M,), NaN: no 3D point."""

    left: Float64
    right: Float64
    errors_px: Float64


def pair_figure(
    label: str, caption: str, pictures: tuple[Picture, Picture], drawn: DrawnMatches, failed: bool
) -> PairFigure:
    """The figure of a pair, with at most `LINES` of its matches, spread over all."""
    total = len(drawn.left)
    lines = []
    for i in np.linspace(0, total - 1, min(total, LINES)).round().astype(int).tolist():
        error = float(drawn.errors_px[i])
        left, right = drawn.left[i].round(1).tolist(), drawn.right[i].round(1).tolist()
        shown = round(error, 2) if np.isfinite(error) else None
        lines.append(MatchLine(left=tuple(left), right=tuple(right), error_px=shown))
    return PairFigure(
        label=label,
        caption=caption,
        left=pictures[0],
        right=pictures[1],
        lines=tuple(lines),
        total=total,
        failed=failed,
    )


def keypoint_errors(model: ModelArrays, errors: Float64, name: str, size: int) -> Float64:
    """(size,) reprojection error of each keypoint of a photo, NaN where it sees no 3D point."""
    result = np.full(size, np.nan)
    if name in model.names:
        own = np.flatnonzero(model.image == model.names.index(name))
        own = own[model.keypoint[own] < size]
        result[model.keypoint[own]] = errors[own]
    return result


def verified_caption(verified: int, raw: int | None, used: int) -> str:
    """What is known of a verified pair."""
    of = f" of {count(raw, 'match')}" if raw else ""
    return f"{verified:,}{of} verified, {used:,} became 3D points"


def close_ups(
    model: ModelArrays,
    before: Callable[[str], NDArray[np.float32] | None],
    image: Callable[[str], ImageArray],
) -> tuple[CloseUp, ...]:
    """Tracks whose keypoints refinement moved, around the median of how far it moved them."""
    raw = np.full((len(model.xy), 2), np.nan)
    for name, own in zip(model.names, model.slices(), strict=True):
        keypoints, index = before(name), model.keypoint[own]
        if keypoints is not None:
            known = index < len(keypoints)
            raw[own][known] = keypoints[index[known]]
    moved = np.linalg.norm(raw - model.xy, axis=1)
    if not np.isfinite(moved).any() or np.nanmax(moved) < 1e-3:
        return ()
    lengths = np.bincount(model.point, np.isfinite(moved), len(model.xyz))
    farthest = np.zeros(len(model.xyz))
    np.maximum.at(farthest, model.point, np.nan_to_num(moved))
    good = np.flatnonzero(lengths >= CLOSEUP_LENGTH)
    if not len(good):
        return ()
    ranked = good[np.argsort(farthest[good], kind="stable")]
    places = np.linspace(0.5, 0.95, CLOSEUPS) * (len(ranked) - 1)
    return tuple(
        _close_up(model, raw, moved, int(point), image)
        for point in dict.fromkeys(ranked[places.round().astype(int)].tolist())
    )


def _close_up(
    model: ModelArrays,
    raw: Float64,
    moved: Float64,
    point: int,
    image: Callable[[str], ImageArray],
) -> CloseUp:
    seen = np.flatnonzero((model.point == point) & np.isfinite(moved))
    seen = seen[np.argsort(-moved[seen], kind="stable")]
    first = np.unique(model.image[seen], return_index=True)[1]  # a photo may see a point twice
    seen = np.sort(seen[np.sort(first)][:CLOSEUP_PHOTOS])
    names = tuple(model.names[i] for i in model.image[seen])
    photos = [image(name) for name in names]
    return CloseUp(
        names=names,
        before=tuple(patch(photo, raw[i]) for photo, i in zip(photos, seen, strict=True)),
        after=tuple(patch(photo, model.xy[i]) for photo, i in zip(photos, seen, strict=True)),
        move_px=round(float(moved[seen].max()), 2),
    )
