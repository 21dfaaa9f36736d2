"""From matches to candidate poses: planes, images, places."""

from __future__ import annotations

import numpy as np
import pytest

from reconstruct import colmap
from reconstruct.datasets.scene import look_at
from reconstruct.geometry import apply_homography
from reconstruct.indoor.candidate_poses import (
    PoseRansacConfig,
    best_matched,
    image_candidates,
    verify_matches,
)
from reconstruct.indoor.direct import ApproximateIndex, nearest_of_all
from reconstruct.indoor.homographies import HomographyConfig, verify_by_homographies
from reconstruct.indoor.rgbd import RgbdPoints

CAMERA = colmap.make_camera("SIMPLE_PINHOLE", (500.0, 320.0, 240.0), (640, 480))


def test_two_planes_are_kept_and_outliers_are_not() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 640, (90, 2))
    planes = np.array([[1, 0.1, 5], [0, 1, 3], [0, 0, 1.0]]), np.diag([0.7, 1.2, 1.0])
    others = np.concatenate(
        [
            apply_homography(planes[0], points[:40]),
            apply_homography(planes[1], points[40:70]),
            rng.uniform(0, 640, (20, 2)),
        ]
    )
    kept = verify_by_homographies(points, others, HomographyConfig(), max_error_px=2.0)
    assert kept[:70].all()
    assert kept[70:].sum() < 8
    one = verify_by_homographies(points, others, HomographyConfig(planes=1), max_error_px=2.0)
    assert one[:40].all()
    assert one[40:70].sum() < 8
    nothing = verify_by_homographies(points[:0], others[:0], HomographyConfig(), max_error_px=2.0)
    assert nothing.shape == (0,)


class Room:
    """Images a, b of one place and c of another; c sees the same points, moved by 10 m."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        xyz = rng.uniform(-1.5, 1.5, (60, 3))
        self.pose = look_at((0.3, -6.0, 1.0), (0, 0, 0.5))
        in_camera = xyz @ self.pose[:, :3].T + self.pose[:, 3]
        self.positions = np.asarray(CAMERA.img_from_cam(in_camera), np.float32)
        stored = {"a": xyz[:40], "b": xyz[30:], "c": np.add(xyz[:20], [10, 0, 0])}
        seen = {name: np.zeros((len(own), 2), np.float32) for name, own in stored.items()}
        self.points = RgbdPoints(sorted(stored), seen.__getitem__, stored.__getitem__)
        self.places = {"a": "one", "b": "one", "c": "two"}
        start = {"a": 0, "b": 30, "c": 0}
        self.matches = {
            name: np.column_stack([np.arange(len(own)) + start[name], np.arange(len(own))]).astype(
                np.uint32
            )
            for name, own in stored.items()
        }

    def __call__(self, *, count: int = 10, pooled: bool = False, min_inliers: int = 12):  # type: ignore[no-untyped-def]
        return image_candidates(
            self.positions,
            self.matches,
            self.points,
            CAMERA,
            self.places,
            PoseRansacConfig(min_inliers=min_inliers),
            count=count,
            pooled=pooled,
            seed=0,
        )


def test_a_candidate_an_image() -> None:
    room = Room()
    found, most = room()
    assert [(c.image, c.place, c.inliers) for c in found] == [
        ("a", "one", 40),
        ("b", "one", 30),
        ("c", "two", 20),
    ]
    assert most == 40
    np.testing.assert_allclose(found[1].cam_from_world, room.pose, atol=1e-3)
    moved = found[2].cam_from_world
    np.testing.assert_allclose(moved[:, :3] @ [10, 0, 0] + moved[:, 3], room.pose[:, 3], atol=1e-3)
    assert [c.image for c in room(count=1)[0]] == ["a"]


def test_a_candidate_a_place() -> None:
    found, most = Room()(pooled=True)
    assert [(c.place, c.inliers, c.matches) for c in found] == [("one", 60, 60), ("two", 20, 20)]
    assert found[0].image == "a"
    assert most == 60


def test_no_candidate_is_none() -> None:
    room = Room()
    assert room(min_inliers=61) == ([], 40)
    room.matches = {}
    assert room() == ([], 0)
    assert best_matched({"a": np.zeros((0, 2), np.uint32)}, 3) == []


def test_pairs_are_verified_at_the_size_of_the_image() -> None:
    rng = np.random.default_rng(2)
    points = rng.uniform(0, 400, (30, 2)).astype(np.float32)
    others = points + rng.uniform(-6, 6, (30, 2)).astype(np.float32)
    rows = {"a": np.tile(np.arange(30, dtype=np.uint32)[:, None], 2)}
    loose = verify_matches(points, {"a": (others, 1600)}, rows, HomographyConfig(), 0)
    strict = verify_matches(points, {"a": (others, 40)}, rows, HomographyConfig(), 0)
    assert len(loose["a"]) >= 28  # by the version of COLMAP
    assert len(strict["a"]) < 10
    assert len(verify_matches(points, {"a": (others, 40)}, rows, None, 0)["a"]) == 30


def test_approximate_search_by_faiss() -> None:
    pytest.importorskip("faiss")
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(500, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    index = ApproximateIndex()
    assert index.search(rows[:2])[0].tolist() == [-1, -1]
    index.add(rows[:0], np.zeros(0, np.int64))
    index.add(rows, 7 + np.arange(500))
    ids, cosine = index.search(rows[:50])
    np.testing.assert_array_equal(ids, 7 + np.arange(50))
    np.testing.assert_allclose(cosine, 1, atol=1e-5)


def test_direct_search_is_exact() -> None:
    import torch

    rng = np.random.default_rng(3)
    query, first, second = (
        torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(n, 8))), dim=1)
        for n in (20, 30, 40)
    )
    parts = [(first, np.arange(30)), (second[:0], np.arange(0)), (second, 100 + np.arange(40))]
    ids, cosine = nearest_of_all(query, parts)
    table = (query @ torch.cat([first, second]).T).numpy()
    best = table.argmax(axis=1)
    np.testing.assert_array_equal(ids, np.where(best < 30, best, best + 70))
    np.testing.assert_allclose(cosine, table.max(axis=1))
    assert nearest_of_all(query, [])[0].tolist() == [-1] * 20
