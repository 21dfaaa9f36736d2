"""Selection of keypoints: pure functions on `LocalFeatures`, numpy only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from reconstruct.errors import ImageError
from reconstruct.types import LocalFeatures


def drop_masked(features: LocalFeatures, mask: NDArray[np.uint8]) -> LocalFeatures:
    """The features without the keypoints on masked pixels.

    As in COLMAP, keypoint (x, y) is on the pixel (floor x, floor y), and one outside of the image
    is dropped.

    Args:
        features: Features of a photo.
        mask: (H, W) grey, of the photo's size; keypoints on pixels of value 0 are dropped.

    Raises:
        ImageError: The mask has another size than the photo.
    """
    width, height = features.image_size
    if mask.shape != (height, width):
        raise ImageError(
            f"expected a grey mask of the photo's size, {width} x {height}, got an array of shape "
            f"{mask.shape} (height, width, ...)"
        )
    x, y = np.floor(features.keypoints).astype(np.int64).T
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    inside[inside] = mask[y[inside], x[inside]] != 0
    return features.select(inside)


def keep_best(
    features: LocalFeatures,
    *,
    score_threshold: float | None = None,
    min_distance_px: float | None = None,
    max_keypoints: int | None = None,
) -> LocalFeatures:
    """Drop keypoints in three steps; the remaining ones stay in their order.

    Among equal scores the first counts as the better one.

    Args:
        features: Features of a photo.
        score_threshold: Keypoints with a smaller score are dropped first.
        min_distance_px: Then those that are nearer than this to a better one.
        max_keypoints: Then all but this many, the best.
    """
    if score_threshold is not None:
        features = features.select(features.scores >= score_threshold)
    if min_distance_px is not None:
        features = features.select(_spread(features, min_distance_px))
    if max_keypoints is not None and len(features) > max_keypoints:
        best = _by_score(features)[:max_keypoints]
        features = features.select(np.sort(best))
    return features


def _by_score(features: LocalFeatures) -> NDArray[np.int64]:
    return np.argsort(-features.scores, kind="stable")


def _spread(features: LocalFeatures, distance_px: float) -> NDArray[np.bool_]:
    """Greedy selection: from the best score down, a keypoint is kept if no kept one is nearer."""
    kept = np.ones(len(features), np.bool_)
    if not len(features):
        return kept
    neighbours = cKDTree(features.keypoints).query_ball_point(features.keypoints, distance_px)
    settled = np.zeros(len(features), np.bool_)
    for index in _by_score(features):
        settled[index] = True
        if kept[index]:
            near = np.asarray(neighbours[index])
            kept[near[~settled[near]]] = False
    return kept
