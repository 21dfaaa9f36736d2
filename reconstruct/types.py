"""What the stages hand to each other.

Pixel convention of the whole package: **COLMAP pixels**. The centre of an image's first pixel is
(0.5, 0.5), x to the right, y down; (0, 0) and (width, height) are its outer corners. Resizing an
image therefore scales positions by the ratio of the sizes, without any offset.
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
    """The N keypoints of an image with their descriptors (N may be 0).

    Attributes:
        keypoints: (N, 2) float32, x and y in COLMAP pixels of the original image.
        scales: (N,) float32, size of a keypoint in original pixels relative to the finest one
            (D2-Net: 1 / pyramid scale; SIFT: sigma in pixels).
        scores: (N,) float32, larger is better; comparable within one image only.
        descriptors: (N, D) float32 of unit length, or a compact form (float16, uint8).
        image_size: (width, height) of the original image in pixels.
        kinds: (N,) uint8, which of several extractors found a keypoint; None where there is only
            one extractor. Descriptors of two kinds cannot be compared: their dot product is 0.
    """

    keypoints: NDArray[np.float32]
    scales: NDArray[np.float32]
    scores: NDArray[np.float32]
    descriptors: NDArray[Any]
    image_size: tuple[int, int]
    kinds: NDArray[np.uint8] | None = None

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
            kinds=None if self.kinds is None else self.kinds[index],
        )

    @classmethod
    def empty(cls, image_size: tuple[int, int], dim: int) -> LocalFeatures:
        """No keypoints: the features of an image without texture.

        Args:
            image_size: (width, height) in pixels.
            dim: Length of a descriptor.
        """
        return cls(
            keypoints=np.zeros((0, 2), np.float32),
            scales=np.zeros(0, np.float32),
            scores=np.zeros(0, np.float32),
            descriptors=np.zeros((0, dim), np.float32),
            image_size=image_size,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matches:
    """Which keypoints of two images show the same point, M of them (M may be 0).

    indices: (M, 2) uint32, keypoint of the first image and of the second, sorted by the first; no
        keypoint stands in more than one match.
    scores: (M,) float32, larger is better; by descriptors it is the cosine of the two.
    """

    indices: NDArray[np.uint32]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.indices)

    def swapped(self) -> Matches:
        """The same matches with the second image as the first."""
        order = np.argsort(self.indices[:, 1], kind="stable")
        indices = np.ascontiguousarray(self.indices[order, ::-1])
        return Matches(indices=indices, scores=self.scores[order])

    @classmethod
    def empty(cls) -> Matches:
        """No match at all."""
        return cls(indices=np.zeros((0, 2), np.uint32), scores=np.zeros(0, np.float32))


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

    @classmethod
    def empty(cls) -> TwoViewGeometry:
        """No geometry: no match agrees with any."""
        return cls(config="UNDEFINED", inliers=np.zeros((0, 2), np.uint32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Intrinsics:
    """Intrinsics of a camera.

    Attributes:
        model: COLMAP's name of the camera model.
        size: (width, height) of its images in pixels.
        params: Parameters in COLMAP's order for the model.
    """

    model: str
    size: tuple[int, int]
    params: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A photo to be localized.

    Attributes:
        name: Relative to the image root, like all image names.
        intrinsics: None if they are unknown.
        group: Group under which it is reported, e.g. ``day`` or ``night``.
    """

    name: str
    intrinsics: Intrinsics | None = None
    group: str = "queries"


class PointMap(Protocol):
    """A map of 3D points: `reconstruct.colmap.Tracks` of structure from motion, or
    `reconstruct.indoor.rgbd.RgbdPoints` of RGB-D images."""

    @property
    def names(self) -> list[str]:
        """Sorted names of the images."""

    def points(self, name: str) -> NDArray[np.int64]:
        """(N,) ids of the 3D points of an image's keypoints, -1 for a keypoint without a point."""

    def positions(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """(N, 3) positions of the points with these ids."""

    def projected(self, name: str) -> NDArray[np.float64]:
        """(N, 2) COLMAP pixels at which an image sees the point of each keypoint, NaN without a
        point."""


PoseStatus = Literal["ok", "too_few_matches", "ransac_failed"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoseEstimate:
    """The outcome of localizing one image; it has a pose if and only if ``status`` is ok.

    Attributes:
        name: Name of the image.
        status: ``ok``, or why there is no pose.
        matches: Number of 2D-3D matches given to the estimator.
        inliers: How many of them agree with the pose.
        cam_from_world: (3, 4) pose.
        covariance: (6, 6) of a rotation vector, in radians, that comes after the pose's rotation,
            and of the translation, by the errors of its inliers, as if the map were exact; None
            where it cannot be computed.
        params: Parameters of the camera, refined if that was asked for.
    """

    name: str
    status: PoseStatus
    matches: int
    inliers: int = 0
    cam_from_world: NDArray[np.float64] | None = None
    covariance: NDArray[np.float64] | None = None
    params: tuple[float, ...] = ()
