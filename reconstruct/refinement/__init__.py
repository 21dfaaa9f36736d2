"""Keypoint refinement: D2-Net's matches with SIFT's precision. Pure functions, no files.

    align_pair            aligns the patches of every match of two images
    split_tracks          cuts matches so that no track holds two points of one image
    refine_keypoints      one displacement per keypoint that agrees with all its alignments
    refine_against        the same for one photo, while the keypoints of the others stay fixed

Nothing here depends on mapping: the inputs are images, keypoints and matches. One displacement per
keypoint over the match graph is the idea of Dusmanu, Schoenberger and Pollefeys, "Multi-View
Optimization of Local Feature Geometry" (ECCV 2020); the alignment is classical Lucas-Kanade.
"""

from __future__ import annotations

from reconstruct.refinement.anchored import Anchored, Anchors, refine_against
from reconstruct.refinement.pairs import PairAlignment, align_pair
from reconstruct.refinement.patches import Pyramid, build_pyramid
from reconstruct.refinement.settings import RefineConfig
from reconstruct.refinement.solve import Refined, refine_keypoints
from reconstruct.refinement.tracks import split_tracks

__all__ = [
    "Anchored",
    "Anchors",
    "PairAlignment",
    "Pyramid",
    "RefineConfig",
    "Refined",
    "align_pair",
    "build_pyramid",
    "refine_against",
    "refine_keypoints",
    "split_tracks",
]
