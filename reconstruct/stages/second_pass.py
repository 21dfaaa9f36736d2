"""Second pass of refinement: a finished model predicts how patches map between its photos.

The points of the model lie on surfaces that can be fitted to their neighbours, so the warp of a
patch from photo to photo is known before anything is aligned (`reconstruct.refinement.surfaces`).
Two things follow. Keypoints are aligned again, from that warp. And points that the matcher missed
in a photo are looked for where the model predicts them: what aligns there becomes an observation.
The caller then runs a bundle adjustment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from reconstruct import colmap
from reconstruct.geometry import Float64, projection_center
from reconstruct.matching.covisibility import covisibility_pairs
from reconstruct.matching.many import tiled
from reconstruct.parallel import side_by_side
from reconstruct.refinement import (
    PairAlignment,
    Pyramid,
    RefineConfig,
    Refined,
    align_pair,
    refine_keypoints,
)
from reconstruct.refinement.patches import level0_scale
from reconstruct.refinement.surfaces import patch_affinities, projected_tangents, surface_normals
from reconstruct.stages.pyramids import cached_pyramids
from reconstruct.types import ImageArray, ImagePair


class SecondPassConfig(RefineConfig):
    """Section ``map.second_pass``: as section ``refine``, with other values, and these."""

    neighbors: int = Field(default=12, ge=3)
    """Nearest points that a surface is fitted to."""
    max_move_px: float = Field(default=4.0, gt=0)
    """As in ``refine``, but smaller: the first pass leaves little to move."""
    prior_sigma_px: float = Field(default=0.5, gt=0)
    """As in ``refine``, but smaller: the first pass has already placed the keypoints."""
    min_correlation: float = Field(default=0.85, ge=-1, le=1)
    """As in ``refine``, but higher: under the right warp, patches of one surface look alike."""
    images: int = Field(default=20, ge=1)
    """Photos that each photo is aligned with: those that share most points with it."""
    extend: bool = True
    """Look for points in photos where they were not matched."""
    max_offset_px: float = Field(default=2.0, gt=0)
    """A new observation lies no farther than this from where the model sees its point."""
    min_facing: float = Field(default=0.4, gt=0, le=1)
    """Cosine of the angle to the surface's normal up to which a point is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Surfaces:
    """ids (P,) of a model's points, sorted; where they are (P, 3), and their normals (P, 3)."""

    ids: NDArray[np.int64]
    points: Float64
    normals: Float64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _View:
    """What one photo sees, or may see, of the model's points.

    ids: (K,) of points, sorted. index: (K,) keypoint that observes each, -1 where none does yet.
    positions: (K, 2) COLMAP pixels of the photo where each is looked for. tangents: (K, 2, 2) of
    its surface, in pixels at ``max_edge``, of which ``scale`` (2,) go to one of the photo.
    """

    ids: NDArray[np.int64]
    index: NDArray[np.int64]
    positions: Float64
    tangents: Float64
    scale: Float64


def second_pass(
    model: colmap.Reconstruction,
    load: Callable[[str], ImageArray],
    config: SecondPassConfig,
    device: str = "cpu",
    advance: Callable[[], None] = lambda: None,
) -> colmap.Reconstruction:
    """The model with its keypoints aligned again, and with observations that were missing.

    Cameras, poses and points are as they were: adjust them to the keypoints next. Keypoints keep
    their numbers; new ones are appended. load: name -> pixels, (H, W, 3) uint8. advance: called
    after each of `pairs_to_align`. Raises ImageError.
    """
    tracks = colmap.Tracks(model)
    pairs = pairs_to_align(model, config)
    views = _views(model, tracks, pairs, config)
    matches = {pair: _matches(views[pair[0]], views[pair[1]]) for pair in pairs}
    alignments = {}
    for pair, found in _align(views, matches, load, config, device):
        alignments[pair] = found
        advance()
    positions = {name: view.positions * view.scale for name, view in views.items()}
    refined = refine_keypoints(positions, matches, alignments, config)
    observed = {name: _observed(tracks, name, views[name], refined, config) for name in views}
    keypoints = {name: both[0] for name, both in observed.items()}
    return colmap.with_observations(
        model, keypoints, {name: both[1] for name, both in observed.items()}
    )


def pairs_to_align(model: colmap.Reconstruction, config: SecondPassConfig) -> list[ImagePair]:
    """Pairs of photos that share points, in an order that reads each photo about once."""
    tracks = colmap.Tracks(model)
    return tiled(covisibility_pairs({n: tracks.points(n) for n in tracks.names}, config.images))


def _views(
    model: colmap.Reconstruction,
    tracks: colmap.Tracks,
    pairs: list[ImagePair],
    config: SecondPassConfig,
) -> dict[str, _View]:
    poses, cameras = colmap.model_poses(model), colmap.model_cameras(model)
    seen = {name: _seen(tracks.points(name)) for name in tracks.names}
    near = {name: [own] for name, own in seen.items()}
    for first, second in pairs if config.extend else []:
        near[first].append(seen[second])
        near[second].append(seen[first])
    surfaces = _surfaces(tracks, poses, seen, config.neighbors)
    return {
        name: _view(
            surfaces, tracks, name, cameras[name], poses[name], _seen(np.concatenate(ids)), config
        )
        for name, ids in near.items()
    }


def _surfaces(
    tracks: colmap.Tracks,
    poses: Mapping[str, Float64],
    seen: Mapping[str, NDArray[np.int64]],
    neighbors: int,
) -> _Surfaces:
    ids = _seen(np.concatenate([np.zeros(0, np.int64), *seen.values()]))
    points = tracks.positions(ids)
    toward = np.zeros_like(points)
    for name, own in seen.items():
        at = np.searchsorted(ids, own)
        toward[at] += _unit(projection_center(poses[name]) - points[at])
    normals = surface_normals(points, _unit(toward), neighbors)
    return _Surfaces(ids=ids, points=points, normals=normals)


def _view(
    surfaces: _Surfaces,
    tracks: colmap.Tracks,
    name: str,
    camera: colmap.Camera,
    pose: Float64,
    ids: NDArray[np.int64],
    config: SecondPassConfig,
) -> _View:
    """ids: of the points that the photo or one it is aligned with observes."""
    at = np.searchsorted(surfaces.ids, ids)
    points, normals = surfaces.points[at], surfaces.normals[at]
    project = partial(colmap.project, camera, pose)
    positions, index = project(points), np.full(len(ids), -1)
    known, first = np.unique(tracks.points(name), return_index=True)
    index[np.searchsorted(ids, known[known >= 0])] = first[known >= 0]
    positions[index >= 0] = tracks.keypoints(name)[index[index >= 0]]
    to_camera = projection_center(pose) - points
    wanted = (normals * _unit(to_camera)).sum(1) >= config.min_facing
    wanted &= ((positions >= 0) & (positions <= (camera.width, camera.height))).all(1)
    wanted |= index >= 0
    points, normals, distance = points[wanted], normals[wanted], to_camera[wanted]
    scale = np.asarray(level0_scale((camera.width, camera.height), config.max_edge))
    tangents = projected_tangents(project, points, normals, np.linalg.norm(distance, axis=1))
    return _View(
        ids=ids[wanted],
        index=index[wanted],
        positions=positions[wanted],
        tangents=scale[:, None] * tangents,
        scale=scale,
    )


def _matches(first: _View, second: _View) -> NDArray[np.int64]:
    """(M, 2) rows of the points of both views that at least one of them observes already."""
    _, row0, row1 = np.intersect1d(first.ids, second.ids, assume_unique=True, return_indices=True)
    known = (first.index[row0] >= 0) | (second.index[row1] >= 0)
    return np.column_stack([row0, row1])[known]


def _align(
    views: Mapping[str, _View],
    matches: Mapping[ImagePair, NDArray[np.int64]],
    load: Callable[[str], ImageArray],
    config: SecondPassConfig,
    device: str,
) -> Iterator[tuple[ImagePair, PairAlignment]]:
    pyramids = cached_pyramids(load, config, device)

    def work(job: tuple[ImagePair, Pyramid, Pyramid]) -> tuple[ImagePair, PairAlignment]:
        """The alignment of a pair, from patches as the model's surfaces show them."""
        pair, pyramid0, pyramid1 = job
        rows, first, second = matches[pair], views[pair[0]], views[pair[1]]
        affinity, possible = patch_affinities(
            first.tangents[rows[:, 0]], second.tangents[rows[:, 1]]
        )
        found = align_pair(
            pyramid0, pyramid1, first.positions, second.positions, rows, config, affinity
        )
        return pair, replace(found, aligned=found.aligned & possible)

    return side_by_side(work, ((pair, pyramids[pair[0]], pyramids[pair[1]]) for pair in matches))


def _observed(
    tracks: colmap.Tracks, name: str, view: _View, refined: Refined, config: SecondPassConfig
) -> tuple[Float64, NDArray[np.int64]]:
    """A photo's keypoints after the second pass, and the point that each sees."""
    offset = refined.displacement[name]
    places = view.positions + offset / view.scale
    keypoints = tracks.keypoints(name)
    moved = refined.refined[name] & (view.index >= 0)
    keypoints[view.index[moved]] = places[moved]
    new = refined.refined[name] & (view.index < 0)
    new &= np.linalg.norm(offset, axis=1) <= config.max_offset_px
    return (
        np.concatenate([keypoints, places[new]]),
        np.concatenate([tracks.points(name), view.ids[new]]),
    )


def _seen(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The points among ``ids``, each once, sorted."""
    return np.unique(ids[ids >= 0])


def _unit(vectors: Float64) -> Float64:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12))
