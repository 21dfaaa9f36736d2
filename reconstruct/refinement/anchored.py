"""Keypoints of one photo, refined against photos whose keypoints stay fixed.

For localization, or wherever one side is known better than the other: each keypoint of the photo
moves to where its surroundings look like those of the anchors that it matches. This is the problem
of `solve`, with the displacements of all anchors held at zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.geometry import Float64
from reconstruct.parallel import side_by_side
from reconstruct.refinement.pairs import PairAlignment, align_pair
from reconstruct.refinement.patches import Pyramid
from reconstruct.refinement.settings import RefineConfig
from reconstruct.refinement.solve import solve_displacements
from reconstruct.types import FloatArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Anchors:
    """A photo whose keypoints are held fixed.

    Attributes:
        pyramid: Of that photo.
        keypoints: (K, 2) COLMAP pixels of that photo.
        matches: (M, 2) indices: of the keypoint to be refined, and of the keypoint of that photo.
    """

    pyramid: Pyramid
    keypoints: NDArray[Any]
    matches: NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Anchored:
    """The outcome of `refine_against`.

    Attributes:
        keypoints: (N, 2) float32 COLMAP pixels of the photo; those that were not refined are
            unchanged.
        refined: (N,) bool.
    """

    keypoints: FloatArray
    refined: NDArray[np.bool_]


def refine_against(
    pyramid: Pyramid, keypoints: NDArray[Any], anchors: Iterable[Anchors], config: RefineConfig
) -> Anchored:
    """Move the keypoints of a photo so that they agree with their anchors.

    Each keypoint gets one displacement, estimated robustly from all its matches. A keypoint without
    an alignment, or whose alignments contradict each other, keeps its position.

    Args:
        pyramid: Of the photo.
        keypoints: (N, 2) COLMAP pixels of the photo.
        anchors: The photos it is matched with; read lazily, a few ahead.
        config: Settings.
    """

    def work(other: Anchors) -> tuple[NDArray[Any], PairAlignment]:
        matches = other.matches[:, ::-1]  # then the photo is image 1, the one that moves
        alignment = align_pair(other.pyramid, pyramid, other.keypoints, keypoints, matches, config)
        return other.matches[:, 0].astype(np.int64), alignment

    done = list(side_by_side(work, anchors))
    delta, refined = _solve(len(keypoints), done, config)
    moved = keypoints + delta / np.asarray(pyramid.scale)
    return Anchored(keypoints=moved.astype(np.float32), refined=refined)


def _solve(
    count: int, done: list[tuple[NDArray[np.int64], PairAlignment]], config: RefineConfig
) -> tuple[Float64, NDArray[np.bool_]]:
    """(N, 2) displacements in pixels at ``max_edge``, zero where not refined, and (N,) refined."""
    nothing = np.zeros(0, np.int64), np.zeros((0, 2)), np.zeros((0, 2, 2))
    used = [(ids[a.aligned], a.displacement[a.aligned], a.covariance[a.aligned]) for ids, a in done]
    index, displacement, covariance = (
        np.concatenate(column) for column in zip(nothing, *used, strict=True)
    )
    # An affinity of zero: however an anchor might move, the keypoint does not follow.
    still = np.zeros((len(index), 2, 2))
    delta, residuals = solve_displacements(
        count, index, index, still, displacement, covariance, config
    )
    refined = np.zeros(count, np.bool_)
    refined[index[residuals < config.max_residual_px]] = True
    refined &= np.linalg.norm(delta, axis=1) <= config.max_move_px
    delta[~refined] = 0.0
    return delta, refined
