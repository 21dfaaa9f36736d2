"""Surfaces from triangulated points: how a small patch around a point maps between photos.

A point and its normal are a small plane. Two tangents of the plane, projected into a photo, are a
2 x 2 matrix J; a patch then maps from photo a to photo b by J_b J_a^-1: the homography that the
plane induces, to first order at the point.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from reconstruct.geometry import Float64
from reconstruct.refinement.affinities import MAX_STRETCH, MIN_STRETCH

ROUNDS: Final = 6
INLIER_SHARE: Final = 0.1
"""Scale of the Cauchy weights of neighbours off the plane, in median distances to them."""
FACING_PRIOR: Final = 0.02
"""Weight of a plane that faces the cameras, against the spread of the neighbours: collinear ones
leave the normal open."""
MIN_FACING: Final = 0.3
"""A plane seen at a smaller cosine than this by the photos of its point is not theirs."""
STEP: Final = 1e-3
"""Of the derivative of a projection, in distances from the camera."""


def surface_normals(points: Float64, toward: Float64, neighbors: int) -> Float64:
    """(P, 3) unit normals of planes through (P, 3) points and their nearest neighbours.

    toward: (P, 3) unit vectors to the cameras that see each point; normals are on their side, and
    they stand in where no plane is seen.
    """
    if len(points) < 4:
        return toward.copy()
    distance, near = cKDTree(points).query(points, min(neighbors, len(points) - 1) + 1)
    around = points[near]
    scale = INLIER_SHARE * np.median(distance[:, 1:], axis=1, keepdims=True).clip(min=1e-12)
    across = np.eye(3) - toward[:, :, None] * toward[:, None, :]
    weights = np.ones(near.shape)
    for _ in range(ROUNDS):
        share = (weights / weights.sum(1, keepdims=True))[..., None]
        center = (share * around).sum(1, keepdims=True)
        offset = around - center
        spread = np.einsum("pk,pki,pkj->pij", weights, offset, offset)
        spread += FACING_PRIOR * np.trace(spread, axis1=1, axis2=2)[:, None, None] * across
        normal = np.linalg.eigh(spread)[1][:, :, 0]
        height = np.einsum("pki,pi->pk", around - points[:, None], normal)
        weights = 1.0 / (1.0 + (height / scale) ** 2)
    normal *= np.where((normal * toward).sum(1, keepdims=True) < 0, -1.0, 1.0)
    unseen = (normal * toward).sum(1) < MIN_FACING
    return np.where(unseen[:, None], toward, normal)


def projected_tangents(
    project: Callable[[Float64], Float64], points: Float64, normals: Float64, distance: Float64
) -> Float64:
    """(P, 2, 2) pixels by which each point moves in a photo along its two tangents, as columns.

    project: (P, 3) -> (P, 2) pixels. distance: (P,) of the points from the camera. The tangents
    are those of the normal alone: the same ones in every photo.
    """
    axis = np.where(np.abs(normals[:, :1]) < 0.9, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    first = np.cross(normals, axis)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    step = STEP * distance[:, None]
    columns = [
        (project(points + step * t) - project(points - step * t)) / (2 * step)
        for t in (first, np.cross(normals, first))
    ]
    return np.stack(columns, axis=-1)


def patch_affinities(
    from_plane0: Float64, from_plane1: Float64
) -> tuple[Float64, NDArray[np.bool_]]:
    """(M, 2, 2) affinities ``1 from 0`` of patches by their `projected_tangents`, and (M,) which
    of them are possible views of one surface; the others are the identity."""
    flat = np.abs(np.linalg.det(from_plane0)) < 1e-12
    flat |= ~np.isfinite(from_plane0 + from_plane1).all((1, 2))
    eye = np.eye(2)
    inverse = np.linalg.inv(np.where(flat[:, None, None], eye, from_plane0))
    affinity = np.where(flat[:, None, None], eye, from_plane1) @ inverse
    stretch = np.linalg.svd(affinity, compute_uv=False)
    possible = ~flat & (np.linalg.det(affinity) > 0)
    possible &= (stretch[:, 1] > MIN_STRETCH) & (stretch[:, 0] < MAX_STRETCH)
    return np.where(possible[:, None, None], affinity, eye), possible
