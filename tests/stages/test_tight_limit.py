"""After refinement, matches of refined keypoints are held to a limit of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reconstruct import colmap
from reconstruct.stages.refine import RefinedEstimator
from reconstruct.stages.verify import RobustEstimator, VerifyConfig
from reconstruct.storage.shard_file import Record
from reconstruct.storage.shards import ShardStore
from reconstruct.types import TwoViewGeometry

PAIR = ("a", "b")
SIZE = (1000, 800)
POSES = np.eye(3, 4), np.array([[1.0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]])  # along x


class Cameras(dict[str, colmap.Camera]):
    def input_scale(self, name: str) -> float:
        return 1.0


def scene(off_px: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Keypoints of both images, of points in space; those of the second are ``off_px`` too low, by
    which they are off their epipolar lines."""
    camera = cameras()["a"]
    points = np.random.default_rng(0).uniform([-3, -3, 6], [3, 3, 10], (len(off_px), 3))
    first, second = (colmap.project(camera, pose, points) for pose in POSES)
    second[:, 1] += np.sqrt(2) * off_px  # the Sampson error halves it between both images
    return first.astype(np.float32), second.astype(np.float32)


def cameras() -> Cameras:
    camera = colmap.make_camera("PINHOLE", [900, 900, 500, 400], SIZE)
    camera.camera_id, camera.has_prior_focal_length = 1, True
    return Cameras(a=camera, b=camera)


def estimated(
    off_px: NDArray[np.float64], refined: NDArray[np.bool_], folder: Path, tight_px: float
) -> TwoViewGeometry:
    store = ShardStore(folder)
    store.write([Record(name, "", {"refined": refined}) for name in PAIR])
    loose = RobustEstimator(cameras(), 0, VerifyConfig(max_error_px=4.0))  # type: ignore[arg-type]
    estimate = RefinedEstimator(loose, tight_px, store)
    matches = np.repeat(np.arange(len(refined), dtype=np.uint32)[:, None], 2, axis=1)
    return estimate(PAIR, (*scene(off_px), matches))


def test_refined_matches_are_held_to_the_tight_limit(tmp_path: Path) -> None:
    exact, off = np.zeros(200), np.tile([2.5, -2.5], 20)
    refined = np.repeat([True, True, False], [200, 40, 40])
    found = set(estimated(np.concatenate([exact, off, off]), refined, tmp_path, 1.0).inliers[:, 0])
    assert set(range(200)) <= found
    assert not found & set(range(200, 240)), "refined, and 2.5 px off"
    assert len(found & set(range(240, 280))) > 30, "not refined: the loose limit holds"


def test_without_enough_refined_matches_the_loose_limit_holds_for_all(tmp_path: Path) -> None:
    refined = np.arange(60) < 5
    assert len(estimated(np.tile([1.5, -1.5], 30), refined, tmp_path, 1.0).inliers) > 50
