"""How far a camera's pose may be off, judged by the residuals that it was estimated from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from reconstruct.colmap.cameras import Camera
from reconstruct.colmap.derivatives import intrinsics_derivatives, point_derivatives
from reconstruct.colmap.robust_loss import cauchy


def pose_covariance(
    camera: Camera,
    cam_from_world: NDArray[np.float64],
    points: NDArray[np.float64],
    residuals: NDArray[np.float64],
    scale_px: float,
    *,
    refine_focal: bool = False,
) -> NDArray[np.float64] | None:
    """Covariance of a pose at the minimum of a Cauchy loss: H^-1 M H^-1, with H the Hessian and M
    the sum of g g^T over the observations, g the gradient of each (the sandwich of Huber, 1967, and
    White, 1980). No noise level is assumed; the points count as exact.

    Args:
        camera: Intrinsics.
        cam_from_world: (3, 4) pose.
        points: (N, 3) world points.
        residuals: (N, 2) keypoints minus projections, in pixels.
        scale_px: Scale of the loss.
        refine_focal: Whether focal lengths were estimated too.

    Returns:
        (6, 6): three of a rotation vector, in radians, that comes after the rotation, three of the
        translation, in the unit of the points. None where the observations do not hold the pose.
    """
    turned = points @ cam_from_world[:, :3].T
    in_camera = turned + cam_from_world[:, 3]
    by_x = point_derivatives(camera, in_camera)
    cross = np.cross(turned[:, None, :], np.eye(3)).transpose(0, 2, 1)
    parts = [-by_x @ cross, by_x]
    if refine_focal:
        focal = len(camera.focal_length_idxs())
        parts.append(intrinsics_derivatives(camera, in_camera)[:, :, :focal])
    jacobian = np.concatenate(parts, axis=2)
    weights, curvatures, _ = cauchy(residuals, scale_px)
    hessian = np.einsum("nij,nik,nkl->jl", jacobian, curvatures, jacobian)
    gradients = np.einsum("nij,ni->nj", jacobian, weights[:, None] * residuals)
    free = 2 * len(points) - jacobian.shape[2]
    if free <= 0 or not np.isfinite(hessian).all() or np.linalg.eigvalsh(hessian)[0] <= 0:
        return None
    inverse = np.linalg.inv(hessian)
    scatter = gradients.T @ gradients * (2 * len(points) / free)
    return np.asarray((inverse @ scatter @ inverse)[:6, :6])
