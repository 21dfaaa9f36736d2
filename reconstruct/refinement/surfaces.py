"""Surfaces of triangulated points: how a small patch around a point maps from photo to photo.

A point and its normal define a small plane. Two tangents of the plane, projected into a photo, are
a 2 x 2 matrix J; a patch then maps from photo a to photo b by J_b J_a^-1: the homography that the
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
"""Weight of a plane that faces the cameras, relative to the spread of the neighbours: collinear
neighbours do not determine the normal."""
MIN_FACING: Final = 0.3
"""A plane that the photos of its point would see at a smaller cosine than this is rejected."""
STEP: Final = 1e-3
"""Step of the numerical derivative of a projection, as a share of the distance from the camera."""


def surface_normals(points: Float64, toward: Float64, neighbors: int) -> Float64:
    """Unit normals of the planes through points and their nearest neighbours.

    Args:
        points: (P, 3).
        toward: (P, 3) unit vectors to the cameras that see each point. Normals are on their side;
            where no plane fits, they take the place of the normal.
        neighbors: Number of nearest points to fit a plane to.

    Returns:
        (P, 3) unit vectors.
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
    """Motion of each point in a photo when it moves along its two tangents.

    The tangents depend on the normal only, so they are the same ones in every photo.

    Args:
        project: Maps (P, 3) world points to (P, 2) pixels of the photo.
        points: (P, 3).
        normals: (P, 3) unit vectors.
        distance: (P,) of the points from the camera.

    Returns:
        (P, 2, 2) pixels per unit of the world; the columns are the tangents.
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
    """Affinities of patches between two photos.

    Args:
        from_plane0: (M, 2, 2) `projected_tangents` in photo 0.
        from_plane1: (M, 2, 2) `projected_tangents` in photo 1.

    Returns:
        (M, 2, 2) affinities ``1 from 0``, and (M,) which of them are possible views of one surface;
            the others are the identity.
    """
    flat = np.abs(np.linalg.det(from_plane0)) < 1e-12
    flat |= ~np.isfinite(from_plane0 + from_plane1).all((1, 2))
    eye = np.eye(2)
    inverse = np.linalg.inv(np.where(flat[:, None, None], eye, from_plane0))
    affinity = np.where(flat[:, None, None], eye, from_plane1) @ inverse
    stretch = np.linalg.svd(affinity, compute_uv=False)
    possible = ~flat & (np.linalg.det(affinity) > 0)
    possible &= (stretch[:, 1] > MIN_STRETCH) & (stretch[:, 0] < MAX_STRETCH)
    return np.where(possible[:, None, None], affinity, eye), possible
