"""What passes between the stages.

Pixel convention of the whole package: **COLMAP pixels**. The centre of an image's first pixel is
(0.5, 0.5), x to the right, y down; (0, 0) and (width, height) are its outer corners. Resizing an
image therefore scales positions by the ratio of the sizes and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

ImageArray = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""

FloatArray = NDArray[np.float32]
IndexArray = NDArray[np.uint32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LocalFeatures:
    """Keypoints of one image with their descriptors, N of each (N may be 0).

    keypoints: (N, 2) float32, COLMAP pixels of the original image, x then y.
    scales: (N,) float32, size of a keypoint in original pixels relative to the finest one
        (D2-Net: 1 / pyramid scale; SIFT: sigma in pixels).
    scores: (N,) float32, larger is better; comparable within one image only.
    descriptors: (N, D) float32 of unit length, or a compact form (float16, uint8).
    image_size: (width, height) of the original image in pixels.
    """

    keypoints: NDArray[np.float32]
    scales: NDArray[np.float32]
    scores: NDArray[np.float32]
    descriptors: NDArray[Any]
    image_size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.keypoints)

    def select(self, index: NDArray[Any]) -> LocalFeatures:
        """The keypoints at ``index`` (a boolean mask or integer positions), in that order."""
        return replace(
            self,
            keypoints=self.keypoints[index],
            scales=self.scales[index],
            scores=self.scores[index],
            descriptors=self.descriptors[index],
        )

    @classmethod
    def empty(cls, image_size: tuple[int, int], dim: int) -> LocalFeatures:
        """No keypoint at all: what a featureless image gives."""
        return cls(
            keypoints=np.zeros((0, 2), np.float32),
            scales=np.zeros(0, np.float32),
            scores=np.zeros(0, np.float32),
            descriptors=np.zeros((0, dim), np.float32),
            image_size=image_size,
        )


ImagePair = tuple[str, str]
"""Two image names (relative to the image root), the smaller one first."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TwoViewGeometry:
    """How two images of one scene are related, and the matches that agree with it.

    config: COLMAP's name of the relation: ``CALIBRATED`` (an essential matrix), ``UNCALIBRATED``
        (a fundamental matrix), ``PLANAR_OR_PANORAMIC`` (a homography), ``WATERMARK`` (a logo in
        the same corner of both), ``DEGENERATE`` or ``UNDEFINED`` (none found) ...
    inliers: (M, 2) uint32 keypoint indices, first column of the first image.
    E, F, H: (3, 3) float64 essential matrix, fundamental matrix and homography, as far as they
        were estimated; ``x1^T F x0 = 0`` and ``x1 ~ H x0`` for pixels, E for rays.
    cam2_from_cam1: (3, 4) float64 pose of the second camera relative to the first, where known.
    params: parameters of both cameras, where the pair gave a focal length that was not known.
    """

    config: str
    inliers: IndexArray
    E: NDArray[np.float64] | None = None
    F: NDArray[np.float64] | None = None
    H: NDArray[np.float64] | None = None
    cam2_from_cam1: NDArray[np.float64] | None = None
    params: tuple[tuple[float, ...], tuple[float, ...]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Intrinsics:
    """A camera without a place: COLMAP's model name, (width, height), parameters in its order."""

    model: str
    size: tuple[int, int]
    params: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A photo whose place is asked for.

    name: relative to the image root, as all names. intrinsics: None where they are not known.
    group: what it is reported under, e.g. ``day`` or ``night``.
    """

    name: str
    intrinsics: Intrinsics | None = None
    group: str = "queries"


class PointMap(Protocol):
    """A map of either kind: `reconstruct.colmap.Tracks` of structure from motion, or
    `reconstruct.indoor.rgbd.RgbdPoints` of RGB-D images."""

    @property
    def names(self) -> list[str]:
        """Sorted names of the images."""

    def points(self, name: str) -> NDArray[np.int64]:
        """(N,) id of the 3D point of each keypoint of an image, -1 where there is none."""

    def positions(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """(N, 3) positions of points by their ids."""

    def projected(self, name: str) -> NDArray[np.float64]:
        """(N, 2) COLMAP pixels where an image sees the point of each keypoint, NaN for none."""


PoseStatus = Literal["ok", "too_few_matches", "ransac_failed"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoseEstimate:
    """The outcome of localizing one image; a pose is there if, and only if, ``status`` is ok.

    cam_from_world: (3, 4). matches: 2D-3D matches given to the estimator. inliers: those that
    agree with the pose. covariance: (6, 6) of rotation (tangent space, radians) and translation,
    where it could be computed. params: the camera's parameters, refined where that was asked for.
    """

    name: str
    status: PoseStatus
    matches: int
    inliers: int = 0
    cam_from_world: NDArray[np.float64] | None = None
    covariance: NDArray[np.float64] | None = None
    params: tuple[float, ...] = ()
