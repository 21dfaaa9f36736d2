"""Queries that a rig took at once: one pose from the matches of all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reconstruct import colmap
from reconstruct.datasets.scene import look_at
from reconstruct.geometry import projection_center, rotation_angle_deg
from reconstruct.localization.frame import QueryFrames, localize_frame
from reconstruct.localization.pose import LocalizeConfig
from reconstruct.localization.query import MatchedQuery, QueryLocalizer
from reconstruct.stages.verify import VerifyConfig
from reconstruct.types import PoseEstimate

CAMERA = colmap.make_camera("PINHOLE", (500.0, 500.0, 320.0, 240.0), (640, 480))
RIG_FROM_WORLD = look_at((1.0, -9.0, 2.0), (0.0, 0.0, 1.5))
CAMS_FROM_RIG = [np.eye(3, 4), np.column_stack([np.eye(3), [-0.5, 0.0, 0.0]])]


class Points:
    """A map of points that one image sees, each with its keypoint of the same number."""

    names = ("map.jpg",)

    def __init__(self, positions: NDArray[np.float64]) -> None:
        self._positions = positions

    def points(self, name: str) -> NDArray[np.int64]:
        return np.arange(len(self._positions))

    def positions(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        return self._positions[ids]


def poses_of(
    seen: tuple[int, int], noise_px: float | NDArray[np.float64] = 0.5
) -> list[PoseEstimate]:
    """Of a pair whose cameras see so many points of the map, and as many wrong ones."""
    random = np.random.default_rng(3)
    world = random.uniform([-4, -2, 0], [4, 2, 4], (200, 3))
    queries = []
    for k, (count, cam_from_rig) in enumerate(zip(seen, CAMS_FROM_RIG, strict=True)):
        pose = cam_from_rig @ np.vstack([RIG_FROM_WORLD, [0, 0, 0, 1]])
        pixels = colmap.project(CAMERA, pose, world) + random.normal(0, noise_px, (200, 2))
        number = np.arange(2 * count)
        wrong = np.where(number < count, number, 199 - number)
        matches = {"map.jpg": np.stack([number, wrong], axis=1).astype(np.uint32)}
        queries.append(
            MatchedQuery(
                name=f"{k}.jpg",
                image=Path("none"),
                keypoints=pixels.astype(np.float32),
                camera=CAMERA,
                camera_known=True,
                matches=matches,
                map_keypoints={},
            )
        )
    localizer = QueryLocalizer(
        LocalizeConfig(max_error_px=4.0),
        VerifyConfig(),
        Points(world),
        {},
        photos=None,
        device="cpu",
        seed=0,
    )
    return localize_frame(localizer, queries, CAMS_FROM_RIG)


def test_a_photo_with_two_points_has_the_pose_of_its_rig() -> None:
    left, right = poses_of((60, 2))
    assert (left.status, right.status) == ("ok", "ok")
    assert (left.matches, right.matches) == (120, 4)
    assert left.inliers >= 58
    assert left.cam_from_world is not None
    assert right.cam_from_world is not None
    np.testing.assert_allclose(projection_center(left.cam_from_world), [1.0, -9.0, 2.0], atol=0.02)
    relative = right.cam_from_world @ np.vstack(
        [np.linalg.inv(np.vstack([left.cam_from_world, [0, 0, 0, 1]]))]
    )
    np.testing.assert_allclose(relative, CAMS_FROM_RIG[1], atol=1e-9)
    assert rotation_angle_deg(left.cam_from_world[:, :3] @ RIG_FROM_WORLD[:, :3].T) < 0.2
    alone = poses_of((60, 0))
    assert [one.status for one in alone] == ["ok", "ok"], "none at all will do"


def test_exact_keypoints_decide_among_others() -> None:
    """A third of the keypoints is off by a pixel, the others by 0.02."""
    noise_px = np.random.default_rng(0).choice([0.02, 0.02, 1.0], size=(200, 1))
    left, _ = poses_of((60, 60), noise_px)
    assert left.cam_from_world is not None
    error = projection_center(left.cam_from_world) - [1.0, -9.0, 2.0]
    assert np.linalg.norm(error) < 1.5e-3  # a loss of one pixel leaves 3 mm


def test_too_few_in_all_are_a_failure() -> None:
    assert [one.status for one in poses_of((3, 2))] == ["too_few_matches"] * 2
    found = poses_of((6, 5))
    assert [one.status for one in found] == ["ransac_failed"] * 2
    assert all(one.cam_from_world is None for one in found)


def test_frames_of_queries(tmp_path: Path) -> None:
    path = tmp_path / "rigs.json"
    right = {"image_prefix": "r/", "cam_from_rig_rotation": [1, 0, 0, 0]}
    right["cam_from_rig_translation"] = [-0.5, 0, 0]
    path.write_text(json.dumps([{"cameras": [{"image_prefix": "l/", "ref_sensor": True}, right]}]))
    names = ["l/1.jpg", "l/2.jpg", "r/1.jpg", "x.jpg"]
    found = QueryFrames.of(colmap.Rigs(path), names)
    assert found.frames == {
        "l/1.jpg": ("l/1.jpg", "r/1.jpg"),
        "r/1.jpg": ("l/1.jpg", "r/1.jpg"),
        "l/2.jpg": ("l/2.jpg",),
        "x.jpg": ("x.jpg",),
    }
    np.testing.assert_allclose(found.cams_from_rig["r/1.jpg"], CAMS_FROM_RIG[1])
    assert QueryFrames.of(None, names).frames["l/1.jpg"] == ("l/1.jpg",)
