"""Pictures of points, dense descriptors, and the choice between poses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic_building import INDOORS, ROOMS, build_room

from reconstruct import colmap
from reconstruct.datasets.rendering import illuminate, render
from reconstruct.datasets.scene import PinholeCamera, View, back_project, look_at
from reconstruct.images import to_grey
from reconstruct.indoor.dense_sift import dense_root_sift, normalise, support
from reconstruct.indoor.dense_verification import (
    VerificationConfig,
    make_cloud,
    prepare_query,
    sample_points,
    seen_images,
    verify_poses,
    view_score,
)
from reconstruct.indoor.rendering import Cloud, render_cloud

MATRIX = np.array([[10.0, 0, 4], [0, 10, 3], [0, 0, 1]])
STILL = np.eye(3, 4)


def cloud(*points: tuple[float, float, float, float]) -> Cloud:
    rows = np.array(points, np.float32).reshape(-1, 4)
    return Cloud(xyz=rows[:, :3], grey=rows[:, 3])


def test_a_point_is_drawn_in_the_pixel_that_holds_it() -> None:
    # (0.05, -0.25, 1) projects to u = 4.5, v = 0.5: the middle of row 0, column 4.
    grey, mask = render_cloud(cloud((0.05, -0.25, 1, 77)), STILL, MATRIX, (8, 6))
    assert grey[0, 4] == 77
    # Gaps of 4 pixels are closed, here the block that the point is in.
    assert np.unique(np.argwhere(mask), axis=0).max(axis=0).tolist() == [3, 7]
    assert not mask[4:].any()
    assert not mask[:, :4].any()


def test_the_nearer_point_hides_and_nothing_behind_the_camera_shows() -> None:
    near, far, behind = (0.05, -0.25, 1, 50), (0.1, -0.5, 2, 90), (0.05, -0.25, -1, 10)
    for points in ((near, far, behind), (behind, far, near)):
        grey, mask = render_cloud(cloud(*points), STILL, MATRIX, (8, 6))
        assert (grey[mask] == 50).all()
    # A far point that shows between near ones is taken away.
    beside = (0.3, -0.5, 2, 90)
    grey, _ = render_cloud(cloud(near, beside), STILL, MATRIX, (8, 6))
    assert (grey == 50).sum() > 1
    assert not (grey == 90).any()


def test_a_missing_pixel_is_closed_and_a_hole_is_not() -> None:
    size = (8, 6)
    x, y = np.meshgrid((np.arange(8) - 3.5) / 10, (np.arange(6) - 2.5) / 10)
    rows = np.stack([x, y, np.ones_like(x), 100 * np.ones_like(x)], axis=2)
    single = rows.copy()
    single[2, 3, 2] = -1
    assert render_cloud(cloud(*single.reshape(-1, 4)), STILL, MATRIX, size)[1].all()
    hole = rows.copy()
    hole[:, 4:, 2] = -1
    grey, mask = render_cloud(cloud(*hole.reshape(-1, 4)), STILL, MATRIX, size)
    assert mask[:, :4].all()
    assert not mask[:, 4:].any()
    assert (grey[mask] == 100).all()


def test_no_points() -> None:
    grey, mask = render_cloud(cloud(), STILL, MATRIX, (8, 6))
    assert not mask.any()
    assert normalise(grey, mask).tolist() == np.zeros((6, 8)).tolist()


# ---------------------------------------------------------------------------------- dense RootSIFT


def ramp(dx: float, dy: float) -> NDArray[np.float32]:
    x, y = np.meshgrid(np.arange(40.0), np.arange(32.0))
    return (dx * x + dy * y).astype(np.float32)


@pytest.mark.parametrize(("step", "orientation"), [((1, 0), 0), ((1, 1), 1), ((0, 1), 2)])
def test_a_ramp_has_one_orientation(step: tuple[int, int], orientation: int) -> None:
    grey = ramp(*step)
    found = dense_root_sift(grey, np.ones(grey.shape, bool), 4, 4)
    assert found.shape == (5, 7, 128)  # (32 - 12) / 4, (40 - 12) / 4
    middle = found[2, 3].reshape(16, 8).T ** 2
    np.testing.assert_allclose(middle.sum(axis=1), np.eye(8)[orientation], atol=1e-3)
    np.testing.assert_allclose(middle[orientation], 1 / 16, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=2), 1, atol=1e-5)


def test_masked_pixels_and_exposure_do_not_count() -> None:
    rng = np.random.default_rng(0)
    grey = rng.uniform(0, 255, (32, 40)).astype(np.float32)
    mask = np.ones(grey.shape, bool)
    mask[10:20, 10:22] = False
    other = np.where(mask, 0.4 * grey + 30, rng.uniform(0, 255, grey.shape)).astype(np.float32)
    first, second = (dense_root_sift(normalise(g, mask), mask, 4, 4) for g in (grey, other))
    np.testing.assert_allclose(first, second, atol=1e-3)
    shares = support(mask, 4, 4)
    assert shares.shape == (5, 7)
    assert shares.min() < 0.7 < shares.max()
    np.testing.assert_allclose(support(np.ones((64, 64), bool), 4, 4)[4, 4], 1.0, atol=1e-6)


def test_contrast_is_the_gradient_by_vlfeats_formula() -> None:
    grey = 0.01 * ramp(1, 0)
    # Every bin of width 4 holds 0.01 x 4 x 4, weighted; their sum is shared among 13 x 13 pixels.
    weight = [np.mean([np.exp(-((x - c) ** 2) / 72) for x in range(-3, 4)]) for c in (-6, -2, 2, 6)]
    expected = 0.01 * 16 * sum(weight) ** 2 / 13**2
    for factor, kept in ((0.99, True), (1.01, False)):
        mask = np.ones(grey.shape, bool)
        found = dense_root_sift(grey, mask, 4, 4, min_contrast=factor * expected)
        assert found[2, 3].any() == kept


def test_flat_walls_are_alike_whatever_their_noise() -> None:
    rng = np.random.default_rng(0)
    wall, mask = np.zeros((64, 200), np.float32), np.ones((64, 200), bool)
    wall[:, 150:] = 200.0  # what the deviation comes from
    noisy = [normalise(wall + rng.normal(0, 0.3, wall.shape).astype("f"), mask) for _ in range(2)]
    for min_contrast, distance in ((0.0, 0.1), (0.005, 0.0)):
        first, second = (dense_root_sift(n, mask, 8, 4, min_contrast=min_contrast) for n in noisy)
        found = np.median(np.linalg.norm(first - second, axis=2)[:, :25])
        assert found == distance if distance == 0 else found > distance


# --------------------------------------------------------------------------------------- Dense PV


class Scan:
    """A photo of a room, with the points of its pixels."""

    def __init__(self) -> None:
        camera = PinholeCamera(width=200, height=150, fx=170.0, fy=170.0, cx=100.0, cy=75.0)
        lit = illuminate(build_room(ROOMS[0], 40.0), INDOORS)
        pose = look_at((-1.0, -1.0, 1.5), (1.6, 2.0, 1.1))
        self.view = View(name="a", camera=camera, cam_from_world=pose)
        rendered = render(lit, self.view)
        self.image = rendered.image
        self.xyz = back_project(self.view, rendered.depth).astype(np.float32)
        params = (camera.fx, camera.cx, camera.cy)
        self.camera = colmap.make_camera("SIMPLE_PINHOLE", params, (200, 150))


@pytest.fixture(scope="module")
def scan() -> Scan:
    return Scan()


def test_the_scan_from_its_own_pose_is_the_photo(scan: Scan) -> None:
    points = make_cloud(scan.xyz, scan.image, 200)
    matrix = scan.view.camera.matrix
    grey, mask = render_cloud(points, scan.view.cam_from_world, matrix, (200, 150))
    assert mask.mean() > 0.98  # points on a pixel's border may fall to its neighbour
    same = np.abs(grey - to_grey(scan.image))[mask] < 0.5
    assert same.mean() > 0.97


def test_the_true_pose_scores_best(scan: Scan) -> None:
    config = VerificationConfig(max_edge=200, bin_px=4, step_px=4)
    query = prepare_query(scan.image, scan.camera, 200)
    points = make_cloud(scan.xyz, scan.image, 200)
    poses = [scan.view.cam_from_world.copy() for _ in range(3)]
    poses[1][0, 3] += 0.15
    poses[2] = look_at((-1.0, -1.0, 1.5), (-9.0, -9.0, 1.1))  # the other way: nothing to see
    scores = verify_poses(
        query,
        poses,
        [["a"], ["a"], ["a"]],
        lambda name: points,
        lambda name: sample_points(points),
        config,
    )
    assert scores[0] < 0.1
    assert scores[0] + 0.3 < scores[1] < 1.42
    assert scores[2] == float("inf")
    half = replace(points, xyz=points.xyz[: len(points.xyz) // 2])
    half = replace(half, grey=points.grey[: len(half.xyz)])
    assert view_score(query, poses[0], half, config) < 0.1


def test_images_that_the_pose_sees(scan: Scan) -> None:
    query = prepare_query(scan.image, scan.camera, 100)
    assert query.size == (100, 75)
    seen = sample_points(make_cloud(scan.xyz, scan.image, 200))
    elsewhere = seen + np.float32(50)
    samples = {"b": elsewhere, "c": seen, "a": np.concatenate([seen, elsewhere])}
    pose = scan.view.cam_from_world
    assert seen_images(query, pose, samples, 5) == ["a", "c"]
    assert seen_images(query, pose, samples, 1) == ["c"]


def test_distortion_is_taken_out_of_the_query(scan: Scan) -> None:
    params = (170.0, 100.0, 75.0, 0.2)
    bent = colmap.make_camera("SIMPLE_RADIAL", params, (200, 150))
    straight = prepare_query(scan.image, scan.camera, 200).grey
    query = prepare_query(scan.image, bent, 200)
    # The ray through pixel (20, 30) of the ideal picture, by the formula of the model.
    x, y = (20.5 - 100) / 170, (30.5 - 75) / 170
    factor = 1 + 0.2 * (x * x + y * y)
    u, v = 170 * x * factor + 100 - 0.5, 170 * y * factor + 75 - 0.5
    (left, a), (top, b) = divmod(u, 1), divmod(v, 1)
    corner = straight[int(top) : int(top) + 2, int(left) : int(left) + 2]
    expected = np.array([1 - b, b]) @ corner @ np.array([1 - a, a])
    assert query.grey[30, 20] == pytest.approx(expected, abs=1.5)
