"""How much two photos of a model contradict that they show one place.

Where a model lays one place over another that looks alike, points of the one and points of the
other lie on the same surface, each seen by photos of its own place alone (what Heinly et al., ECCV
2014, call conflicting observations). Two photos that look at that surface from about the same
distance and direction ought to share points there if it were one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.spatial import cKDTree

from reconstruct import colmap
from reconstruct.config import Section
from reconstruct.geometry import Float64, projection_center


class ConflictConfig(Section):
    """When two photos of a model contradict that they show one place."""

    region: float = Field(0.05, gt=0, lt=1)
    """Radius around a point in which none may be seen by both photos for them to differ there, as
    a part of a photo's longer edge."""
    depth: float = Field(0.02, gt=0)
    """Points lie on one surface if their depths differ by less than this part."""
    max_angle_deg: float = Field(30.0, gt=0, lt=180)
    """From directions that differ by more, points may be missed in one place too."""
    max_scale: float = Field(2.0, gt=1)
    """So may those that are so many times larger in one of the photos."""
    missed: float = Field(0.05, gt=0, lt=0.5)
    """Share of regions in which photos of one place may share no point where they look alike
    otherwise; of two places, one in two."""
    certainty: float = Field(10.0, gt=0)
    """Logarithm of the odds from which two photos are in conflict."""


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

    def project(self, points: Float64) -> Float64:
        """(K, 2) pixels of (K, 3) points; infinite behind the camera."""
        ahead = self.depths(points) > 0
        pixels = np.full((len(points), 2), np.inf)
        pixels[ahead] = colmap.project(self.camera, self.pose, points[ahead])
        return pixels


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


def contradiction(first: View, second: View, config: ConflictConfig) -> tuple[float, float]:
    """What says that two photos show different places, and what says that they show one.

    Either photo's picture is divided into squares. In some it sees what the other should see too;
    where it does, one place is more likely; where the other sees further points on the same surface
    instead, two are.

    Returns:
        The logarithm of the odds for two places, and that of the odds for one by all squares in
        which the photos share points, from whatever direction.
    """
    missed, shared, common = _regions(first, second, config)
    if missed:
        missed_back, shared_back, _ = _regions(second, first, config)
        missed, shared = min(missed, missed_back), max(shared, shared_back)
    differs, agrees = np.log(0.5 / config.missed), np.log((1.0 - config.missed) / 0.5)
    return float(missed * differs - shared * agrees), float(common * agrees)


def _regions(view: View, other: View, config: ConflictConfig) -> tuple[int, int, int]:
    """Number of squares of ``other`` in which it misses points of ``view`` though it sees further
    ones on the same surface; of those in which it sees points of ``view`` as it should; and of all
    in which it sees any."""
    pixels = other.project(view.points)
    comparable = _comparable(view, other, pixels, config)
    common, seen = np.isin(view.ids, other.ids), np.isin(other.ids, view.ids)
    radius, other_radius = (config.region * max(side.size) for side in (view, other))
    alone = np.flatnonzero(comparable & ~common)
    alone = alone[_distance(view.pixels[common], view.pixels[alone]) > radius]
    alone = alone[_distance(other.pixels[seen], pixels[alone]) > other_radius]
    # Distance in the picture and in depth at once, both as parts of their limits.
    scale = np.array([0.6 * other_radius, 0.6 * other_radius, config.depth])
    depths = other.depths(view.points[alone])
    expected = np.column_stack([pixels[alone], np.log(depths)]) / scale
    own_depths = np.log(np.maximum(other.depths(other.points[~seen]), 1e-300))
    further = np.column_stack([other.pixels[~seen], own_depths]) / scale
    missed = alone[_distance(further, expected) <= 1.0]

    def squares(of: Float64) -> int:
        return len(np.unique(of // (2.0 * other_radius), axis=0))

    shared = pixels[comparable & common]
    return squares(pixels[missed]), squares(shared), squares(other.pixels[seen])


def _comparable(
    view: View, other: View, pixels: Float64, config: ConflictConfig
) -> NDArray[np.bool_]:
    """(N,) whether the other photo sees a view's points from about the same direction and at about
    the same size, inside of its picture. pixels: (N, 2) where it sees them."""
    inside = (pixels > 0).all(1) & (pixels < other.size).all(1)
    rays = [view.points - projection_center(side.pose) for side in (view, other)]
    lengths = [np.maximum(np.linalg.norm(ray, axis=1), 1e-300) for ray in rays]
    cosines = (rays[0] * rays[1]).sum(1) / (lengths[0] * lengths[1])
    focal = other.camera.mean_focal_length() / view.camera.mean_focal_length()
    scales = np.abs(np.log(focal * lengths[0] / lengths[1]))
    similar = cosines > np.cos(np.radians(config.max_angle_deg))
    return np.asarray(inside & similar & (scales < np.log(config.max_scale)))


def _distance(to: Float64, points: Float64) -> Float64:
    """(K,) distance of each point to the nearest of ``to``; infinite if there is none."""
    if not len(to) or not len(points):
        return np.full(len(points), np.inf)
    return np.asarray(cKDTree(to).query(points)[0])
