"""Dense pose verification (Taira et al., "InLoc", section 4.3): compare a query with the map as
rendered from a candidate pose."""

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
"""Every 499th point of an image is used to decide whether a view shows it: a prime, so that the
sample does not follow the image's rows."""


class VerificationConfig(Section):
    """Section ``verification``: dense pose verification."""

    max_edge: int = Field(504, ge=64)
    """Queries are compared at this longest edge (InLoc: an eighth of 4032)."""
    bin_px: int = Field(8, ge=2)
    """Width of a bin of the dense descriptors, which span four."""
    step_px: int = Field(4, ge=1)
    """Distance between neighbouring descriptors."""
    min_contrast: float = Field(0.005, ge=0)
    """Descriptors of less contrast are zero, so that flat walls are alike and their noise is not
    compared: `contrastthreshold` of VLFeat's vl_phow, which InLoc calls. A gradient a pixel, of
    pictures of deviation 1. 0: none."""
    images: int = Field(8, ge=1)
    """At most this many images of the place are rendered: those of which most is visible from the
    pose."""
    min_support: float = Field(0.8, gt=0, le=1)
    """A descriptor counts if the rendered map covers this share of it."""
    min_valid: float = Field(0.15, ge=0, le=1)
    """A pose from which the map covers a smaller share of the descriptors cannot be judged; it
    ranks after those that can."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ComparedQuery:
    """A query at the size at which poses are compared.

    Attributes:
        grey: (H, W), without distortion.
        matrix: (3, 3) calibration matrix, in COLMAP pixels.
    """

    grey: FloatArray
    matrix: Float64

    @property
    def size(self) -> tuple[int, int]:
        """(width, height)."""
        return self.grey.shape[1], self.grey.shape[0]


def prepare_query(image: ImageArray, camera: colmap.Camera, max_edge: int) -> ComparedQuery:
    """Shrink a query and remove the distortion of its camera.

    Args:
        image: (H, W, 3) uint8 RGB.
        camera: Intrinsics of the photo.
        max_edge: Longest edge of the result.
    """
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
    """Median distance between RootSIFT descriptors of the query and of the rendered map.

    Args:
        query: The query.
        cam_from_world: (3, 4) candidate pose.
        cloud: Points of the map.
        config: Settings.

    Returns:
        0 if both look alike, sqrt(2) if they have nothing in common; infinite if the map covers too
            little of the view.
    """
    drawn, mask = render_cloud(cloud, cam_from_world, query.matrix, query.size)
    grid = config.bin_px, config.step_px
    judged = support(mask, *grid) >= config.min_support
    if not judged.any() or judged.mean() < config.min_valid:
        return float("inf")
    # One mask for both: holes look the same in the two.
    first, second = (
        dense_root_sift(normalise(image, mask), mask, *grid, min_contrast=config.min_contrast)
        for image in (query.grey, drawn)
    )
    distance = np.linalg.norm(first - second, axis=2)
    return float(np.median(distance[judged]))


def seen_images(
    query: ComparedQuery,
    cam_from_world: Float64,
    samples: Mapping[str, FloatArray],
    limit: int,
) -> list[str]:
    """The images of which most is in the view.

    Args:
        query: The query.
        cam_from_world: (3, 4) candidate pose.
        samples: Image -> (S, 3) some of its points, see `sample_points`.
        limit: Largest number of images.

    Returns:
        Sorted names.
    """
    shares = {
        name: len(project_cloud(points, cam_from_world, query.matrix, query.size)[0])
        / max(len(points), 1)
        for name, points in samples.items()
    }
    order = sorted(shares, key=lambda name: (-shares[name], name))
    return sorted(name for name in order[:limit] if shares[name] > 0)


def sample_points(cloud: Cloud) -> FloatArray:
    """(S, 3) points of a cloud, spread over it."""
    return cloud.xyz[::_SAMPLE].copy()  # a view would keep the whole cloud in memory


def make_cloud(xyz: FloatArray, image: ImageArray, wanted_edge: int) -> Cloud:
    """The points of an RGB-D image, subsampled.

    Args:
        xyz: (H, W, 3), NaN where nothing was measured.
        image: Its photo, of any size.
        wanted_edge: About how many points remain along the longer edge.
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
    """All points of several clouds as one."""
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

    Args:
        query: The query.
        poses: (3, 4) candidate poses.
        images: Of each pose the images of its place.
        cloud: Image -> its points; called for images that are visible from a pose.
        sample: Image -> its `sample_points`; called for all images of the place.
        config: Settings.
    """
    scores = []
    for pose, names in zip(poses, images, strict=True):
        seen = seen_images(query, pose, {name: sample(name) for name in names}, config.images)
        scores.append(view_score(query, pose, join([cloud(name) for name in seen]), config))
    return scores
