"""Dense PV (Taira et al., "InLoc", section 4.3): is what the map shows from a pose the query?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from pydantic import Field

from reconstruct import colmap
from reconstruct.config import Section
from reconstruct.geometry import Float64
from reconstruct.images import shrink, to_grey
from reconstruct.indoor.dense_sift import dense_root_sift, normalise, support
from reconstruct.indoor.rendering import Cloud, project_cloud, render_cloud
from reconstruct.types import FloatArray, ImageArray

_SAMPLE: Final = 499
"""Every so manieth point of an image tells whether a view shows it: a prime, against patterns."""


class VerificationConfig(Section):
    """Section ``verification``: Dense PV."""

    max_edge: int = Field(504, ge=64)
    """Queries are compared at this longest edge (InLoc: an eighth of 4032)."""
    bin_px: int = Field(8, ge=2)
    """Width of a bin of the dense descriptors; one spans four."""
    step_px: int = Field(4, ge=1)
    """Distance between neighbouring descriptors."""
    images: int = Field(8, ge=1)
    """At most so many images of the place are drawn: those of which most is seen from the pose."""
    min_support: float = Field(0.8, gt=0, le=1)
    """A descriptor counts if the map covers this share of it."""
    min_valid: float = Field(0.15, ge=0, le=1)
    """A pose from which the map covers fewer descriptors than this share of all cannot be judged;
    it ranks behind those that can."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ComparedQuery:
    """A query at the size at which poses are compared. grey: (H, W); matrix: (3, 3), COLMAP
    pixels, without distortion."""

    grey: FloatArray
    matrix: Float64

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.grey.shape[1], self.grey.shape[0]


def prepare_query(image: ImageArray, camera: colmap.Camera, max_edge: int) -> ComparedQuery:
    """Shrink a query (H, W, 3) and take its camera's distortion out."""
    grey = shrink(to_grey(image), max_edge)
    size = grey.shape[1], grey.shape[0]
    ratio = np.array(size) / (image.shape[1], image.shape[0])
    matrix = np.diag([*ratio, 1.0]) @ camera.calibration_matrix()
    if camera.model.name not in ("SIMPLE_PINHOLE", "PINHOLE"):
        u, v = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
        rays = np.stack([u, v, np.ones_like(u)], axis=2).reshape(-1, 3) @ np.linalg.inv(matrix).T
        # - 0.5: OpenCV counts from the centre of the first pixel.
        at = (np.asarray(camera.img_from_cam(rays)) * ratio - 0.5).astype(np.float32)
        at = at.reshape(size[1], size[0], 2)
        grey = np.asarray(cv2.remap(grey, at[..., 0], at[..., 1], cv2.INTER_LINEAR), np.uint8)
    return ComparedQuery(grey=np.asarray(grey, np.float32), matrix=matrix)


def view_score(
    query: ComparedQuery, cam_from_world: Float64, cloud: Cloud, config: VerificationConfig
) -> float:
    """Median distance of RootSIFT descriptors of the query and of the map seen from the pose.

    0: alike, sqrt(2): nothing in common; infinite where the map covers too little of the view.
    """
    drawn, mask = render_cloud(cloud, cam_from_world, query.matrix, query.size)
    grid = config.bin_px, config.step_px
    judged = support(mask, *grid) >= config.min_support
    if not judged.any() or judged.mean() < config.min_valid:
        return float("inf")
    # One mask for both: holes look the same in the two.
    first, second = (
        dense_root_sift(normalise(image, mask), mask, *grid) for image in (query.grey, drawn)
    )
    distance = np.linalg.norm(first - second, axis=2)
    return float(np.median(distance[judged]))


def seen_images(
    query: ComparedQuery,
    cam_from_world: Float64,
    samples: Mapping[str, FloatArray],
    limit: int,
) -> list[str]:
    """The (at most ``limit``) images of which most is in the view, sorted by name.

    samples: image -> (S, 3) a few of its points, see `sample_points`.
    """
    shares = {
        name: len(project_cloud(points, cam_from_world, query.matrix, query.size)[0])
        / max(len(points), 1)
        for name, points in samples.items()
    }
    order = sorted(shares, key=lambda name: (-shares[name], name))
    return sorted(name for name in order[:limit] if shares[name] > 0)


def sample_points(cloud: Cloud) -> FloatArray:
    """(S, 3) of a cloud's points, spread over it."""
    return cloud.xyz[::_SAMPLE].copy()  # a view would keep the whole cloud in memory


def make_cloud(xyz: FloatArray, image: ImageArray, wanted_edge: int) -> Cloud:
    """The points of an RGB-D image, thinned to about ``wanted_edge`` along its longer edge.

    xyz: (H, W, 3), NaN where nothing was measured. image: its photo, of any size.
    """
    step = max(1, max(xyz.shape[:2]) // wanted_edge)
    size = (xyz.shape[1], xyz.shape[0])
    grey = to_grey(image)
    if (grey.shape[1], grey.shape[0]) != size or step > 1:
        small = (size[0] // step, size[1] // step)
        grey = np.asarray(cv2.resize(grey, small, interpolation=cv2.INTER_AREA), np.uint8)
    # The middle of each block of pixels, which the photo was averaged over.
    start = step // 2
    points = xyz[start::step, start::step][: grey.shape[0], : grey.shape[1]]
    grey = grey[: points.shape[0], : points.shape[1]]
    valid = np.isfinite(points).all(axis=2)
    return Cloud(xyz=points[valid], grey=grey[valid].astype(np.float32))


def join(clouds: Sequence[Cloud]) -> Cloud:
    """All points of several clouds."""
    return Cloud(
        xyz=np.concatenate([np.zeros((0, 3), np.float32), *(c.xyz for c in clouds)]),
        grey=np.concatenate([np.zeros(0, np.float32), *(c.grey for c in clouds)]),
    )


def verify_poses(
    query: ComparedQuery,
    poses: Sequence[Float64],
    images: Sequence[Sequence[str]],
    cloud: Callable[[str], Cloud],
    sample: Callable[[str], FloatArray],
    config: VerificationConfig,
) -> list[float]:
    """`view_score` of each pose.

    images: of each pose's place. cloud: image -> its points, asked for those that a pose sees;
    sample: image -> its `sample_points`, asked for all of the place.
    """
    scores = []
    for pose, names in zip(poses, images, strict=True):
        seen = seen_images(query, pose, {name: sample(name) for name in names}, config.images)
        scores.append(view_score(query, pose, join([cloud(name) for name in seen]), config))
    return scores
