"""How far the poses of a model may be off, judged by its own residuals.

Bundle adjustment minimises the sum of rho(r) over observations. Around its minimum, whatever the
noise looks like, poses and intrinsics scatter about the truth with the covariance

    C = S^-1 M S^-1,    M = sum over points of g g^T

(the sandwich of Huber, 1967, and White, 1980). S is the Hessian J^T rho'' J after the points are
eliminated (Schur complement; Triggs et al., "Bundle adjustment - a modern synthesis", 1999, section
6), and g is what the observations of one point add to the gradient of the other parameters after
that. Points are taken as independent of each other; the observations of one may depend on each
other. Nothing is assumed about the noise, neither its size nor that all keypoints are equally
exact: refined ones beside others are not.

Photos alone leave position, orientation and size of the world open. Camera centres are those after
the similarity that brings them closest to the true ones, which is how models are compared with a
reference (`reconstruct.evaluation.poses.similarity`); rotations those after the turn of the world
that brings them closest, as centres close to a line would leave the world to spin around it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from reconstruct import colmap
from reconstruct.colmap import ModelArrays
from reconstruct.errors import EstimationError
from reconstruct.evaluation.poses import Poses, similarity
from reconstruct.geometry import Float64, projection_center

MIN_IMAGES: Final = 3
"""Two camera centres are brought onto any others by a similarity."""
SIMILARITY: Final = 7
"""Parameters of a similarity."""
NULL: Final = 1e-8
"""Eigenvalues of the scaled normal matrix below this, relative to the largest, count as zero."""
TURNS: Final = slice(3, 6)
"""Which of them turn the world."""
FIRM: Final = 0.1
"""A point is at a minimum if its loss bends upwards by this part of what it would at least do
without the parts that bend downwards."""
CHUNK: Final = 4096
"""Points that are eliminated together."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoseUncertainty:
    """Covariances of the I poses of a model, in the model's frame and unit.

    Attributes:
        names: (I,) images, sorted.
        positions: (3 I, 3 I) covariance of all camera centres, x, y, z of one image after the
            other. Its rank is 3 I - 7.
        rotations: (I, 3, 3) covariance of each camera's rotation, as a rotation vector in the
            camera's frame, in radians.
    """

    names: tuple[str, ...]
    positions: Float64
    rotations: Float64

    @property
    def position_covariances(self) -> Float64:
        """(I, 3, 3) covariance of each camera centre."""
        count = len(self.names)
        blocks = self.positions.reshape(count, 3, count, 3)
        return np.stack([blocks[i, :, i] for i in range(count)])

    @property
    def position_sigmas(self) -> Float64:
        """(I,) root mean square of the distance of a camera centre from the truth."""
        variances = np.diagonal(self.positions).reshape(-1, 3).sum(1)
        return np.asarray(np.sqrt(variances.clip(min=0)))

    @property
    def rotation_sigmas_deg(self) -> Float64:
        """(I,) root mean square of the angle between a rotation and the truth, in degrees."""
        variances = np.trace(self.rotations, axis1=1, axis2=2)
        return np.asarray(np.degrees(np.sqrt(variances.clip(min=0))))


def pose_uncertainty(
    model: ModelArrays, loss_px: float | None, *, adjusted_cameras: Collection[int] = ()
) -> PoseUncertainty:
    """Covariances of a model's poses.

    Args:
        model: A model at the minimum of its bundle adjustment.
        loss_px: Scale of the Cauchy loss of that adjustment; None: squares.
        adjusted_cameras: Ids of cameras whose focal lengths and distortion were unknowns too.

    Raises:
        EstimationError: Fewer than three images or no observations, points that leave more than a
            similarity open, or a model that is not at a minimum.
    """
    count = len(model.names)
    if count < MIN_IMAGES or not len(model.image):
        raise EstimationError(f"a model of {count} images has no uncertainty: it takes three")
    unknowns = _derivatives(model, adjusted_cameras)
    normal, scatter = _eliminate_points(model, *unknowns, loss_px)
    inverse = _inverse(normal)
    covariance = inverse @ scatter @ inverse
    moves = _similarity_moves(model, len(normal))
    centers = _aligned(_centers_from_poses(model, len(normal)), moves)
    turns = _aligned(np.eye(len(normal))[_turns(count)], moves[:, TURNS])
    blocks = (turns @ covariance @ turns.T).reshape(count, 3, count, 3)
    return PoseUncertainty(
        names=model.names,
        positions=centers @ covariance @ centers.T,
        rotations=np.stack([blocks[i, :, i] for i in range(count)]),
    )


def normalised_error(
    uncertainty: PoseUncertainty, estimated: Poses, reference: Poses
) -> float | None:
    """Squared error of a model's camera centres over what its uncertainty says: 1 if it is honest.

    The errors after alignment by a similarity, d, give d^T C^+ d / (3 I - 7), with C the covariance
    of the positions (Bar-Shalom et al., "Estimation with Applications to Tracking and Navigation",
    2001, section 5.4: NEES).

    Args:
        uncertainty: Of the model.
        estimated: Image -> (3, 4) cam_from_world of the model, in its own frame.
        reference: Image -> (3, 4) cam_from_world, the truth.

    Returns:
        The error; None where the truth of an image is unknown.
    """
    if not set(uncertainty.names) <= set(reference):
        return None
    source = np.array([projection_center(estimated[name]) for name in uncertainty.names])
    target = np.array([projection_center(reference[name]) for name in uncertainty.names])
    scale, rotation, translation = similarity(source, target)
    inside = (target - translation) @ rotation / scale
    errors = (source - inside).ravel()
    values, axes = np.linalg.eigh(uncertainty.positions)
    return float(np.mean(np.square(axes[:, 7:].T @ errors) / values[7:]))


def _derivatives(
    model: ModelArrays, adjusted_cameras: Collection[int]
) -> tuple[sparse.csr_array, Float64]:
    """(2 O, D) derivatives of the projections by poses and intrinsics, and (O, 2, 3) by points.

    A pose has six parameters: a rotation vector w and a shift u, in the camera's frame, that come
    after it: x_camera -> exp([w]) x_camera + u.
    """
    by_pose = np.empty((len(model.image), 2, 6))
    by_point = np.empty((len(model.image), 2, 3))
    intrinsics: dict[int, list[tuple[slice, Float64]]] = {}
    for camera, pose, own in zip(model.cameras, model.poses, model.slices(), strict=True):
        rotation, translation = pose[:, :3], pose[:, 3]
        x = model.xyz[model.point[own]] @ rotation.T + translation
        by_x = colmap.point_derivatives(camera, x)
        by_pose[own] = np.concatenate([-by_x @ _cross(x), by_x], axis=2)
        by_point[own] = by_x @ rotation
        if camera.camera_id in adjusted_cameras:
            rows = intrinsics.setdefault(camera.camera_id, [])
            rows.append((own, colmap.intrinsics_derivatives(camera, x)))
    blocks = [_columns(by_pose, model.image, len(model.names))]
    for rows in intrinsics.values():
        by_camera = np.zeros((len(model.image), 2, rows[0][1].shape[2]))
        for own, part in rows:
            by_camera[own] = part
        blocks.append(_columns(by_camera, np.zeros_like(model.image), 1))
    return sparse.hstack(blocks, format="csr"), by_point


def _eliminate_points(
    model: ModelArrays, derivatives: sparse.csr_array, by_point: Float64, loss_px: float | None
) -> tuple[Float64, Float64]:
    """(D, D) normal matrix without the points, and (D, D) sum of g g^T (see the module)."""
    residuals = np.nan_to_num(model.xy - model.projections())
    weights, curvatures = _curvatures(model.point, by_point, residuals, loss_px)
    gradients = (weights[:, None] * residuals).reshape(-1, 1)
    size = derivatives.shape[1]
    normal, scatter = np.zeros((size, size)), np.zeros((size, size))
    order = np.argsort(model.point, kind="stable")
    chunks = np.searchsorted(model.point[order], np.arange(0, len(model.xyz) + CHUNK, CHUNK))
    for first, last in pairwise(chunks.tolist()):
        rows = order[first:last]
        both = (2 * rows[:, None] + [0, 1]).ravel()
        point = model.point[rows] % CHUNK
        a = derivatives[both]
        b = _columns(by_point[rows], point, CHUNK)
        k = _block_diagonal(curvatures[rows])
        mixed = a.T @ k @ b
        a_alone = a - b @ _inverse_blocks(b.T @ k @ b) @ mixed.T
        normal += (a_alone.T @ k @ a).toarray()
        of_points = _columns(np.ones((len(rows), 2, 1)), point, CHUNK)
        shares = of_points.T @ (a_alone * gradients[both])
        scatter += (shares.T @ shares).toarray()
    return normal, scatter


def _curvatures(
    point: NDArray[np.int64], by_point: Float64, residuals: Float64, loss_px: float | None
) -> tuple[Float64, Float64]:
    """(O,) weights w of residuals r under c^2 / 2 log(1 + |r|^2 / c^2), whose gradient is w r, and
    its (O, 2, 2) second derivatives; of |r|^2 / 2 without a loss.

    Beyond c the loss bends downwards along r. For a point of which most observations lie there that
    makes no minimum, where an adjustment with steps of its own kind still came to rest: its
    observations count as if their loss were straight.
    """
    if loss_px is None:
        return np.ones(len(residuals)), np.tile(np.eye(2), (len(residuals), 1, 1))
    weights, true, straight = colmap.cauchy(residuals, loss_px)
    firmness = [_firmness(point, by_point, kind) for kind in (true, straight)]
    loose = firmness[0] < FIRM * firmness[1]
    return weights, np.where(loose[point][:, None, None], straight, true)


def _firmness(point: NDArray[np.int64], by_point: Float64, curvatures: Float64) -> Float64:
    """(P,) least eigenvalue of the Hessian of each point alone."""
    hessians = np.zeros((int(point.max()) + 1, 3, 3))
    np.add.at(hessians, point, by_point.transpose(0, 2, 1) @ curvatures @ by_point)
    return np.asarray(np.linalg.eigvalsh(hessians)[:, 0])


def _block_diagonal(blocks: Float64) -> sparse.bsr_array:
    """(N, K, K) blocks as a sparse matrix (N K, N K)."""
    count, size, _ = blocks.shape
    return sparse.bsr_array((blocks, np.arange(count), np.arange(count + 1)), 2 * (size * count,))


def _inverse_blocks(matrix: sparse.sparray) -> sparse.sparray:
    """Inverse of a block-diagonal matrix of 3 x 3 blocks; zero where a block is."""
    blocks = matrix.tobsr((3, 3))
    blocks.sort_indices()
    return sparse.bsr_array(
        (np.linalg.pinv(blocks.data, hermitian=True), blocks.indices, blocks.indptr), blocks.shape
    )


def _columns(values: Float64, block: NDArray[np.int64], blocks: int) -> sparse.csr_array:
    """(O, 2, K) values of O observations as a sparse matrix (2 O, K * blocks): block by block."""
    count, rows, width = values.shape
    columns = (width * block[:, None, None] + np.arange(width)).repeat(rows, axis=1)
    ends = np.arange(0, values.size + 1, width)
    return sparse.csr_array((values.ravel(), columns.ravel(), ends), (count * rows, width * blocks))


def _inverse(normal: Float64) -> Float64:
    """Generalised inverse of a normal matrix that leaves exactly a similarity open."""
    scale = 1.0 / np.sqrt(np.diagonal(normal).clip(min=np.finfo(float).tiny))
    values, axes = np.linalg.eigh(scale[:, None] * normal * scale)
    open_ = int((values < NULL * values[-1]).sum())
    if open_ != SIMILARITY:
        raise EstimationError(
            f"the points leave {open_} directions of the poses open, not the {SIMILARITY} of a "
            "similarity: parts of the model do not hang together, or it was not adjusted so"
        )
    kept = axes[:, SIMILARITY:] * scale[:, None]
    return np.asarray((kept / values[SIMILARITY:]) @ kept.T)


def _centers_from_poses(model: ModelArrays, size: int) -> Float64:
    """(3 I, D) how camera centres move with the parameters: by -R^T u."""
    count = len(model.names)
    result = np.zeros((count, 3, size))
    for i, pose in enumerate(model.poses):
        result[i, :, 6 * i + 3 : 6 * i + 6] = -pose[:, :3].T
    return result.reshape(3 * count, size)


def _turns(count: int) -> NDArray[np.int64]:
    """(3 I,) which parameters are rotation vectors of images."""
    return (6 * np.arange(count)[:, None] + np.arange(3)).ravel()


def _similarity_moves(model: ModelArrays, size: int) -> Float64:
    """(D, 7) how the parameters move when the world is shifted, turned (`TURNS`) and scaled."""
    moves = np.zeros((size, SIMILARITY))
    for i, pose in enumerate(model.poses):
        rotation, translation = pose[:, :3], pose[:, 3]
        own = moves[6 * i : 6 * i + 6]
        own[3:, :3] = -rotation
        own[:3, TURNS] = -rotation
        own[3:, TURNS] = -_cross(translation[None])[0] @ rotation
        own[3:, 6] = translation
    return moves


def _aligned(observed: Float64, moves: Float64) -> Float64:
    """(Q, D) how quantities change with the parameters, after the moves of the world that bring
    them back best; without these it is ``observed``."""
    moved = observed @ moves
    return np.asarray(observed - moved @ (np.linalg.pinv(moved) @ observed))


def _cross(x: Float64) -> Float64:
    """(N, 3, 3) matrices of the cross products with (N, 3) vectors."""
    return np.cross(x[:, None, :], np.eye(3)).transpose(0, 2, 1)
