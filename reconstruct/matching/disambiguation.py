"""Pairs of photos that look alike and show different places, found by what they do not share.

Two rooms with the same furniture match well, and their two-view geometries agree with each other:
loops of rotations close. A model of such photos folds: it lays one place over the other. What gives
it away is where nothing matches: points of the one and points of the other lie on the same surface,
each seen by photos of its own place alone (what Heinly et al., ECCV 2014, call conflicting
observations). Few pairs see this, and it has to part all photos of one place from all of the other:
photos are joined to groups as in Kruskal's spanning forest, those first that share most of what
both could see, and never groups between which there is a conflict.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.spatial import cKDTree

from reconstruct import colmap
from reconstruct.config import Section
from reconstruct.geometry import Float64
from reconstruct.types import ImagePair


class ConflictConfig(Section):
    """When two photos of a model contradict that they show one place."""

    region: float = Field(0.05, gt=0, lt=1)
    """Radius around a point in which none may be seen by both photos for them to differ there, as
    a part of a photo's longer edge."""
    depth: float = Field(0.02, gt=0)
    """Points lie on one surface if their depths differ by less than this part."""
    min_points: int = Field(5, ge=1)
    """Points of a photo that must be missed for a conflict."""
    min_shared: float = Field(0.3, ge=0, lt=1)
    """Share of points that both photos must see in the regions where any are seen by both; photos
    that share less differ in viewpoint, and nothing is concluded from what they miss."""
    tolerance: float = Field(0.3, gt=0)
    """Conflict that a match of the pair makes up for. A point that is missed is a conflict of
    -log(1 - s), s being the share above: how unlikely it is to be missed in one place."""
    least: float = Field(0.05, ge=0)
    """Groups of photos are of two places if there is at least this much conflict between them for a
    match between them; so a single pair does not part a large group."""


@dataclass(frozen=True, slots=True, eq=False)
class Disambiguation:
    """What came of the pairs of some photos.

    Attributes:
        places: The photos by place, the largest place first, names sorted.
        conflicts: Pair -> conflict, for those with more of it than their matches make up for.
        removed: Sorted pairs of photos of different places.
    """

    places: list[list[str]]
    conflicts: dict[ImagePair, float]
    removed: list[ImagePair]


def disambiguate(
    models: Sequence[colmap.Reconstruction],
    matches: Mapping[ImagePair, int],
    config: ConflictConfig,
) -> Disambiguation:
    """Part photos of places that only look alike.

    Args:
        models: What mapping makes of all pairs, folded as it may be.
        matches: Verified pair -> number of its matches.
        config: Limits.
    """
    conflicts: dict[ImagePair, float] = {}
    shares = dict.fromkeys(sorted(matches), 0.0)
    for model in models:
        views = model_views(model)
        for a, b in shares:
            if a in views and b in views:
                found, shares[a, b] = compare(views[a], views[b], config)
                if found > config.tolerance * matches[a, b]:
                    conflicts[a, b] = found
    places = reunite(part(shares, conflicts), matches, conflicts, config.least)
    place_of = {name: number for number, names in enumerate(places) for name in names}
    removed = [pair for pair in shares if place_of[pair[0]] != place_of[pair[1]]]
    return Disambiguation(places, dict(sorted(conflicts.items())), removed)


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The points that a photo of a model observes.

    Attributes:
        ids: (N,) ids of the points, sorted.
        points: (N, 3) their positions.
        pixels: (N, 2) the keypoints that observe them.
        camera: The photo's camera.
        pose: (3, 4) cam_from_world.
    """

    ids: NDArray[np.int64]
    points: Float64
    pixels: Float64
    camera: colmap.Camera
    pose: Float64

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the photo in pixels."""
        return self.camera.width, self.camera.height

    def depths(self, points: Float64) -> Float64:
        """(K,) depths of (K, 3) points, negative behind the camera."""
        return np.asarray(points @ self.pose[2, :3] + self.pose[2, 3])


def model_views(model: colmap.Reconstruction) -> dict[str, View]:
    """Name of every registered photo -> what it sees."""
    tracks, cameras = colmap.Tracks(model), colmap.model_cameras(model)
    views = {}
    for name, pose in colmap.model_poses(model).items():
        ids = tracks.points(name)
        known, first = np.unique(ids[ids >= 0], return_index=True)
        pixels = tracks.keypoints(name)[ids >= 0][first]
        views[name] = View(known, tracks.positions(known), pixels, cameras[name], pose)
    return views


def compare(first: View, second: View, config: ConflictConfig) -> tuple[float, float]:
    """How much two photos of a model contradict that they show one place (0: not at all), and the
    share of points that both see in the regions where there are such."""
    both = _missed(first, second, config), _missed(second, first, config)
    missed, shared = np.min(both, axis=0).tolist()
    if missed < config.min_points or shared < config.min_shared:
        return 0.0, shared
    return float(-missed * np.log1p(-min(shared, 0.9))), shared


def _missed(view: View, other: View, config: ConflictConfig) -> tuple[int, float]:
    """How many points of a view the other misses though it sees further points on the same surface,
    and the share of points that both see in the regions where there are such."""
    common, seen = np.isin(view.ids, other.ids), np.isin(other.ids, view.ids)
    depths = other.depths(view.points)
    pixels = np.full((len(depths), 2), np.inf)
    pixels[depths > 0] = colmap.project(other.camera, other.pose, view.points[depths > 0])
    inside = (pixels > 0).all(1) & (pixels < other.size).all(1)
    radii = [config.region * max(side.size) for side in (view, other)]
    near = _distance(view.pixels[common], view.pixels) <= radii[0]
    shared = float(np.mean(common[inside & near])) if (inside & near).any() else 0.0
    alone = inside & ~near
    void = _distance(other.pixels[seen], pixels[alone]) > radii[1]
    # Distance in the picture and in depth at once, both as parts of their limits.
    scale = np.array([0.6 * radii[1], 0.6 * radii[1], config.depth])
    expected = np.column_stack([pixels[alone], np.log(depths[alone])]) / scale
    own_depths = np.log(np.maximum(other.depths(other.points), 1e-300))
    further = (np.column_stack([other.pixels, own_depths]) / scale)[~seen]
    return int(np.sum(void & (_distance(further, expected) <= 1.0))), shared


def _distance(to: Float64, points: Float64) -> Float64:
    """(K,) distance of each point to the nearest of ``to``; infinite if there is none."""
    if not len(to) or not len(points):
        return np.full(len(points), np.inf)
    return np.asarray(cKDTree(to).query(points)[0])


def part(shares: Mapping[ImagePair, float], conflicts: Collection[ImagePair]) -> list[list[str]]:
    """Groups of photos without a conflict inside.

    Pairs join the groups of their photos, those of the largest share first and of equal ones by
    name, unless some pair between the groups is in conflict.

    Returns:
        The groups, the largest first, names sorted.
    """
    group = {name: name for pair in shares for name in pair}
    members = {name: [name] for name in group}
    against: dict[str, set[str]] = {name: set() for name in group}  # by photo, of a whole group
    for a, b in conflicts:
        against[a].add(b)
        against[b].add(a)
    for pair in sorted(shares, key=lambda pair: (-shares[pair], pair)):
        a, b = (group[name] for name in pair)
        if len(members[a]) < len(members[b]):
            a, b = b, a
        if a == b or not against[a].isdisjoint(members[b]):
            continue
        for name in members[b]:
            group[name] = a
        members[a] += members.pop(b)
        against[a] |= against.pop(b)
    return _ordered(members.values())


def reunite(
    groups: Sequence[Sequence[str]],
    matches: Mapping[ImagePair, int],
    conflicts: Mapping[ImagePair, float],
    least: float,
) -> list[list[str]]:
    """The groups, those joined between which conflict is less than ``least`` times the matches."""
    places = [list(names) for names in groups]
    while True:
        number = {name: i for i, names in enumerate(places) for name in names}
        total: dict[tuple[int, int], int] = {}
        conflict: dict[tuple[int, int], float] = {}
        for (a, b), count in matches.items():
            i, j = sorted((number[a], number[b]))
            total[i, j] = total.get((i, j), 0) + count
            conflict[i, j] = conflict.get((i, j), 0.0) + conflicts.get((a, b), 0.0)
        weak = [(i, j) for i, j in total if i != j and conflict[i, j] < least * total[i, j]]
        if not weak:
            return _ordered(places)
        i, j = min(weak, key=lambda pair: (-total[pair], pair))
        places[i] += places.pop(j)


def _ordered(groups: Iterable[Iterable[str]]) -> list[list[str]]:
    return sorted((sorted(names) for names in groups), key=lambda names: (-len(names), names))
