"""Two-view geometry of one pair of images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pycolmap
from numpy.typing import NDArray

from reconstruct.colmap.cameras import Camera
from reconstruct.geometry import epipolar_errors_px, relative_pose
from reconstruct.types import ImagePair, TwoViewGeometry


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoViewOptions:
    """How a two-view geometry is estimated.

    max_error_px: largest (Sampson) error of an inlier. min_inliers: a geometry with fewer is none.
    seed: of RANSAC.
    """

    max_error_px: float = 4.0
    min_inliers: int = 15
    seed: int = 0


def pair_seed(seed: int, pair: ImagePair) -> int:
    """A seed for a pair of images, whatever other pairs there are."""
    digest = hashlib.sha256(f"{seed} {pair[0]!r} {pair[1]!r}".encode()).digest()
    return int.from_bytes(digest[:4], "little") & 0x7FFFFFFF


def estimate_two_view_geometry(
    camera0: Camera,
    keypoints0: NDArray[np.float32],
    camera1: Camera,
    keypoints1: NDArray[np.float32],
    matches: NDArray[np.uint32],
    options: TwoViewOptions,
) -> TwoViewGeometry:
    """Robust two-view geometry (LO-RANSAC) of (M, 2) matches; without inliers if there is none."""
    settings = pycolmap.TwoViewGeometryOptions()
    settings.min_num_inliers = options.min_inliers
    settings.ransac.max_error = options.max_error_px
    settings.ransac.random_seed = options.seed
    points = keypoints0.astype(np.float64), keypoints1.astype(np.float64)
    found = pycolmap.estimate_two_view_geometry(
        camera0, points[0], camera1, points[1], matches, settings
    )
    return from_colmap(found)


def geometry_from_poses(
    camera0: Camera,
    keypoints0: NDArray[np.float32],
    camera1: Camera,
    keypoints1: NDArray[np.float32],
    matches: NDArray[np.uint32],
    poses: tuple[NDArray[np.float64], NDArray[np.float64]],
    *,
    max_error_px: float,
    min_inliers: int,
) -> TwoViewGeometry:
    """The matches within ``max_error_px`` of their epipolar lines under two known poses."""
    points = keypoints0.astype(np.float64), keypoints1.astype(np.float64)
    rays = [
        camera.cam_from_img(xy[column.astype(np.int64)])
        for camera, xy, column in zip((camera0, camera1), points, matches.T, strict=True)
    ]
    pose = relative_pose(*poses)
    focal = (camera0.mean_focal_length(), camera1.mean_focal_length())
    kept = matches[epipolar_errors_px(pose, rays[0], rays[1], focal) <= max_error_px]
    if len(kept) < min_inliers:
        return TwoViewGeometry.empty()
    return TwoViewGeometry(config="CALIBRATED", inliers=kept, cam2_from_cam1=pose)


def from_colmap(found: pycolmap.TwoViewGeometry) -> TwoViewGeometry:
    """COLMAP's geometry without its types."""
    pose = found.cam2_from_cam1
    return TwoViewGeometry(
        config=pycolmap.TwoViewGeometryConfiguration(found.config).name,
        inliers=np.asarray(found.inlier_matches, np.uint32).reshape(-1, 2),
        F=found.F,
        E=found.E,
        H=found.H,
        cam2_from_cam1=None if pose is None else pose.matrix(),
    )


def to_colmap(geometry: TwoViewGeometry) -> pycolmap.TwoViewGeometry:
    """A geometry as COLMAP's database takes it."""
    result = pycolmap.TwoViewGeometry()
    result.config = pycolmap.TwoViewGeometryConfiguration.__members__[geometry.config]
    result.inlier_matches = geometry.inliers
    for name in ("F", "E", "H"):
        if getattr(geometry, name) is not None:
            setattr(result, name, getattr(geometry, name))
    if geometry.cam2_from_cam1 is not None:
        result.cam2_from_cam1 = pycolmap.Rigid3d(geometry.cam2_from_cam1)
    return result
