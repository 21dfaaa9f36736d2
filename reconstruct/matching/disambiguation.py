"""Photos of places that look alike, parted by what they do not share.

Two rooms with the same furniture match well, and their two-view geometries agree with each other:
loops of rotations close. A model of such photos folds: it lays one place over the other. Three
kinds of evidence give it away. Groups of photos with hardly a point in common were held together by
chance. Photos that miss each other's points on one surface contradict that it is one
(`reconstruct.matching.conflicts`); few do, but no model without a fold has such photos. And photos
of one place look alike between their points too (`reconstruct.matching.appearance`): that says of
all photos where they belong, once it is known that there are two places.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from reconstruct import colmap
from reconstruct.geometry import Float64
from reconstruct.matching.appearance import Appearance, likeness
from reconstruct.matching.conflicts import ConflictConfig, View, contradiction, model_views
from reconstruct.types import ImagePair

MIN_PHOTOS: Final = 3
"""Fewer are no place of their own: without the others they would be in no model."""
MIN_COMMON: Final = 10
"""Points that two photos must share to be compared between them."""
LINK: Final = 1e-3
"""Weight of a common point where nothing else says where a photo belongs."""


class PlacesConfig(ConflictConfig):
    """When photos of a model are of several places."""

    min_points: int = Field(30, ge=1)
    """Groups of photos with fewer points in common are of two places; as many matches are what a
    photo needs to be registered."""
    least: float = Field(0.1, ge=0)
    """Places are parted if conflict between their photos is at least this part of what says that
    they are one."""


@dataclass(frozen=True, slots=True, eq=False)
class Disambiguation:
    """What came of the pairs of some photos.

    Attributes:
        places: The registered photos by place, the largest place first, names sorted.
        conflicts: Pair -> logarithm of the odds that it shows two places, for those in conflict.
        removed: Sorted pairs of photos of different places.
    """

    places: list[list[str]]
    conflicts: dict[ImagePair, float]
    removed: list[ImagePair]


def disambiguate(
    models: Sequence[colmap.Reconstruction],
    pairs: Collection[ImagePair],
    config: PlacesConfig,
    look: Callable[[str, View], Appearance],
) -> Disambiguation:
    """Part photos of places that only look alike.

    Args:
        models: What mapping makes of all pairs, folded as it may be.
        pairs: Verified pairs.
        config: Limits.
        look: (name, what the photo sees) -> what it looks like; asked for where there is conflict.
    """
    places: list[list[str]] = []
    removed: list[ImagePair] = []
    conflicts: dict[ImagePair, float] = {}
    for model in models:
        views = model_views(model)
        found = [
            place
            for group in groups_of(views, config.min_points)
            for place in _places({name: views[name] for name in group}, config, look, conflicts)
        ]
        number = {name: i for i, names in enumerate(found) for name in names}
        removed += [(a, b) for a, b in pairs if {a, b} <= number.keys() and number[a] != number[b]]
        places += found
    return Disambiguation(_ordered(places), dict(sorted(conflicts.items())), sorted(removed))


def groups_of(views: Mapping[str, View], min_points: int) -> list[list[str]]:
    """Groups of photos that at least so many common points hold together; those of less than
    `MIN_PHOTOS` are with the others with which they share most."""
    names = sorted(views)
    if not names:
        return []
    sees = _visibility([views[name].ids for name in names])
    group = np.arange(len(names))
    while True:
        number = int(group.max()) + 1
        member = csr_array((np.ones(len(names)), (group, np.arange(len(names)))))
        group_sees = (member @ sees > 0).astype(np.float64)
        common = (group_sees @ group_sees.T).toarray()
        np.fill_diagonal(common, 0)
        linked = common >= min_points
        small = np.flatnonzero((np.bincount(group) < MIN_PHOTOS) & common.any(1))
        linked[small, common[small].argmax(1)] |= ~linked[small].any(1)
        merged, label = connected_components(linked, directed=False)
        if merged == number:
            return _ordered([names[i] for i in np.flatnonzero(group == k)] for k in range(number))
        group = label[group]


def _visibility(ids: Sequence[NDArray[np.int64]]) -> csr_array:
    """(photos, points) 1 where a photo sees a point."""
    known, columns = np.unique(np.concatenate(ids), return_inverse=True)
    rows = np.repeat(np.arange(len(ids)), [len(own) for own in ids])
    return csr_array((np.ones(len(rows)), (rows, columns)), (len(ids), len(known)))


def _places(
    views: Mapping[str, View],
    config: PlacesConfig,
    look: Callable[[str, View], Appearance],
    conflicts: dict[ImagePair, float],
) -> list[list[str]]:
    """The places that photos of one group show; their conflicts are added to ``conflicts``."""
    names = sorted(views)
    odds, one_place = np.zeros((2, len(names), len(names)))
    for i, j in combinations(range(len(names)), 2):
        found = contradiction(views[names[i]], views[names[j]], config)
        odds[i, j], one_place[i, j] = found
        odds[j, i], one_place[j, i] = found
    against = np.argwhere(np.triu(odds) > config.certainty)
    conflicts.update({(names[i], names[j]): float(odds[i, j]) for i, j in against})
    conflict = np.where(odds > config.certainty, odds, 0.0)
    balance = conflict - config.least * one_place
    if not _are_two(balance, cut(-balance)):
        return [names]
    correlations, weights, common = _compared(views, look)
    parts, places = [np.arange(len(names))], []
    while parts:
        part = parts.pop()
        inner = np.ix_(part, part)
        average = _average(correlations[inner], weights[inner])
        looks = weights[inner] * (correlations[inner] - average)
        second = cut(looks - conflict[inner] + LINK * common[inner])
        if _are_two(balance[inner], second):
            parts += [part[second], part[~second]]
        else:
            places.append([names[i] for i in part])
    return places


def _are_two(balance: Float64, second: NDArray[np.bool_]) -> bool:
    """Whether the photos of a second place are enough, and conflict between the two outweighs what
    says that they are one. Of either place more than one photo must be in conflict: something may
    have moved before a single one."""
    across = balance[second][:, ~second]
    enough = min(across.shape) >= MIN_PHOTOS
    witnesses = min((across > 0).any(side).sum() for side in (0, 1)) if enough else 0
    return bool(witnesses > 1 and across.sum() > 0)


def _compared(
    views: Mapping[str, View], look: Callable[[str, View], Appearance]
) -> tuple[Float64, Float64, Float64]:
    """(N, N) each, of photos sorted by name: correlation between their common points, its weight,
    and the number of these points."""
    names = sorted(views)
    correlations, weights, common = np.zeros((3, len(names), len(names)))
    for i, j in combinations(range(len(names)), 2):
        a, b = names[i], names[j]
        common[i, j] = common[j, i] = np.isin(views[a].ids, views[b].ids).sum()
        if common[i, j] >= MIN_COMMON:
            windows, correlation = likeness(look(a, views[a]), look(b, views[b]))
            correlations[i, j] = correlations[j, i] = correlation
            weights[i, j] = weights[j, i] = np.sqrt(windows)
    return correlations, weights, common


def _average(values: Float64, weights: Float64) -> float:
    total = float(weights.sum())
    return float((values * weights).sum()) / total if total else 0.0


def cut(affinity: Float64) -> NDArray[np.bool_]:
    """(N,) a side for each photo, so that little affinity, and much below zero, lies across.

    The signs of the leading eigenvector, then moved one by one while that gains.

    Args:
        affinity: (N, N), symmetric, with zeros on the diagonal.
    """
    scale = 1.0 / np.sqrt(np.maximum(np.abs(affinity).sum(0), 1e-300))
    leading = np.linalg.eigh(scale[:, None] * affinity * scale)[1][:, -1]
    side = np.where(leading > 0, 1.0, -1.0)
    while True:
        gain = -(affinity @ side) * side
        best = int(gain.argmax())
        if gain[best] <= 1e-9:
            return np.asarray(side > 0)
        side[best] *= -1.0


def _ordered(groups: Iterable[Iterable[str]]) -> list[list[str]]:
    return sorted((sorted(names) for names in groups), key=lambda names: (-len(names), names))
