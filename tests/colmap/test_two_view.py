"""The two-view geometry of one pair, on planted matches and on the small square."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colmap_verification import verify_database
from numpy.typing import NDArray

from reconstruct import colmap
from reconstruct.colmap.consensus import likely_inliers, sampson_errors, trials_needed
from reconstruct.types import ImagePair, TwoViewGeometry

SIZE = (1000, 800)
POSE0 = np.eye(3, 4)
ANGLE = 0.2
POSE1 = np.array(
    [
        [np.cos(ANGLE), 0, -np.sin(ANGLE), 1.0],
        [0, 1, 0, 0.1],
        [np.sin(ANGLE), 0, np.cos(ANGLE), 0.2],
    ]
)

Planted = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.uint32]]


def known_camera() -> colmap.Camera:
    camera = colmap.make_camera("PINHOLE", [900, 900, 500, 400], SIZE)
    camera.camera_id, camera.has_prior_focal_length = 1, True
    return camera


def planted(right: int, wrong: int, noise_px: float = 0.5, seed: int = 0) -> Planted:
    """Keypoints of both images and matches, the first ``right`` of them of a scene with depth."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, (4 * right, 3)) * [4, 3, 2] + [0, 0, 8]
    camera = known_camera()
    seen = [colmap.project(camera, pose, points) for pose in (POSE0, POSE1)]
    inside = np.all([(xy > 0) & (xy < SIZE) for xy in seen], axis=(0, 2))
    views = [
        np.concatenate([xy[inside][:right], rng.uniform(0, SIZE, (wrong, 2))])
        + rng.normal(0, noise_px, (right + wrong, 2))
        for xy in seen
    ]
    assert len(views[0]) == right + wrong
    index = np.arange(right + wrong, dtype=np.uint32)
    return views[0], views[1], np.stack([index, index], 1)


def estimate(data: Planted, seed: int = 0, **options: Any) -> TwoViewGeometry:
    camera, (first, second, matches) = known_camera(), data
    settings = colmap.TwoViewOptions(**options)
    return colmap.estimate_two_view_geometry(
        camera, first, camera, second, matches, settings, seed=seed
    )


@pytest.mark.parametrize(("right", "wrong"), [(200, 20), (200, 400)])
def test_planted_matches_come_back(right: int, wrong: int) -> None:
    found = estimate(planted(right, wrong))
    assert found.config == "CALIBRATED"
    kept = found.inliers[:, 0]
    assert np.count_nonzero(kept < right) > 0.98 * right
    assert np.count_nonzero(kept >= right) < 0.05 * wrong, "chance lets a few agree"
    assert found.E is not None
    rays0, rays1 = (
        np.column_stack([known_camera().cam_from_img(xy[:right]), np.ones(right)])
        for xy in planted(right, wrong, noise_px=0)[:2]
    )
    residuals = np.sum(rays1 * (rays0 @ (found.E / np.linalg.norm(found.E)).T), axis=1)
    assert np.abs(residuals).max() < 0.01


def test_few_right_matches_are_found() -> None:
    data = planted(60, 440)  # 12 %
    for seed in range(3):
        assert np.count_nonzero(estimate(data, seed).inliers[:, 0] < 60) > 50
    old = {"search": "colmap", "max_trials": 10_000, "min_inlier_ratio": 0.25}
    found = np.count_nonzero(estimate(data, 1, **old).inliers[:, 0] < 60)
    assert found < 45, "the reason for another search than COLMAP's"


def test_many_matches_that_nearly_agree_do_not_hide_those_that_do() -> None:
    right, wrong = 80, 200
    first, second, matches = planted(right, wrong)
    rng = np.random.default_rng(1)
    upward = rng.uniform(-5, 5, wrong), rng.uniform(-300, 300, wrong)  # near upright lines
    second[right:] = first[right:] + np.column_stack(upward)
    in_a_band, in_all = (estimate((first, second, matches), search_band=b) for b in (0.375, 1.0))
    assert np.count_nonzero(in_a_band.inliers[:, 0] < right) > 0.9 * right
    assert np.count_nonzero(in_all.inliers[:, 0] < right) < 0.2 * right


def test_a_search_that_opencv_gives_up_finds_nothing() -> None:
    rows = [
        *([-117, -24, -157, -5], [-225, -149, -211, -65], [-132, -13, -215, -64]),
        *([-199, -85, -198, -34], [-101, -124, -148, -52], [-125, -118, -160, -49]),
        *([-174, -12, -188, 2], [95, -49, 45, -33]),
    ]
    points = np.array(rows, np.float64)
    camera = colmap.make_camera("PINHOLE", [400, 400, 0, 0], (480, 360))
    found = likely_inliers(
        (camera, camera),
        (points[:, :2], points[:, 2:]),
        max_error_px=4.0,
        search_band=0.375,
        max_trials=100,
        min_inlier_ratio=0.1,
        confidence=0.999,
        seed=1,
    )
    assert found is not None
    assert found.shape == (8,)


def test_trials_that_are_needed() -> None:
    assert trials_needed(0.5, 5, 0.999) == 218  # log(0.001) / log(31 / 32)
    assert trials_needed(1.0, 5, 0.999) == 1
    assert trials_needed(0.0, 5, 0.999) > 10**12


def test_distance_from_epipolar_lines() -> None:
    sideways = np.array([[0, 0, 0], [0, 0, -1], [0, 1, 0]], np.float64)  # lines of equal y
    errors = sampson_errors(sideways, np.array([[5.0, 7.0]]), np.array([[9.0, 10.0]]))
    np.testing.assert_allclose(errors, [3 / np.sqrt(2)])


def test_colmaps_own_search_is_geometric_verification(
    verified: tuple[Path, Path],
) -> None:
    options = colmap.TwoViewOptions(search="colmap", max_trials=10_000, min_inlier_ratio=0.25)
    with colmap.database.opened(verified[0]) as database:
        camera = database.read_all_cameras()[0]
        keypoints = [database.read_keypoints(i)[:, :2] for i in (1, 2)]
        expected = database.read_two_view_geometry(1, 2)
        found = colmap.estimate_two_view_geometry(
            camera, keypoints[0], camera, keypoints[1], database.read_matches(1, 2), options, seed=0
        )
    np.testing.assert_array_equal(found.inliers, expected.inlier_matches)
    np.testing.assert_array_equal(found.F, expected.F)


def test_order_and_threads_change_nothing() -> None:
    data = {f"{i}": planted(80, 80 + 40 * i, seed=i) for i in range(4)}

    def verify(name: str) -> TwoViewGeometry:
        return estimate(data[name], colmap.pair_seed(7, ("a", name)))

    names = sorted(data)
    alone = [verify(name) for name in names]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(verify, names[::-1]))[::-1]
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a.inliers, b.inliers)
        np.testing.assert_array_equal(a.E, b.E)


def test_seeds_of_pairs() -> None:
    pairs: list[ImagePair] = [("a", "b"), ("a", "c"), ("ab", ""), ("a\x00", "b")]
    seeds = {colmap.pair_seed(seed, pair) for seed in (0, 1) for pair in pairs}
    assert len(seeds) == 8
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert colmap.pair_seed(0, ("a", "b")) == colmap.pair_seed(0, ("a", "b"))


@pytest.mark.parametrize("count", [0, 5, 14])
def test_too_few_matches_are_no_geometry(count: int) -> None:
    found = estimate(planted(count, 0))
    assert (found.config, found.inliers.shape) == ("UNDEFINED", (0, 2))
    assert found.E is found.F is found.H is None


def test_known_poses_keep_what_is_near_epipolar_lines() -> None:
    first, second, matches = planted(30, 0, noise_px=0)
    second[3] += [0, 10]  # the baseline is along x: off its line by nearly 10 px
    second[4] += [0, 2]
    camera = known_camera()
    keep = {"max_error_px": 4.0, "min_inliers": 15}
    found = colmap.geometry_from_poses(
        camera, first, camera, second, matches, (POSE0, POSE1), **keep
    )
    assert found.inliers[:, 0].tolist() == [i for i in range(30) if i != 3]
    np.testing.assert_allclose(found.cam2_from_cam1, POSE1)
    few = colmap.geometry_from_poses(
        camera, first, camera, second, matches[:15], (POSE0, POSE1), **keep
    )
    assert len(few.inliers) == 0


@pytest.fixture(scope="module")
def verified(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The small square's matches in two databases: verified by COLMAP, and written as verified."""
    folder = tmp_path_factory.mktemp("verified")
    theirs, ours = folder / "theirs.db", folder / "ours.db"
    with colmap.database.opened(finished / "database.db") as database:
        cameras = {camera.camera_id: camera for camera in database.read_all_cameras()}
        images = {image.image_id: image for image in database.read_all_images()}
        keypoints = {i.name: database.read_keypoints(k)[:, :2] for k, i in images.items()}
        pair_ids, rows = database.read_all_matches()
    owners = colmap.CameraAssignment(cameras, {i.name: i.camera_id for i in images.values()})
    pairs = [
        tuple(images[i].name for i in colmap.database.pycolmap.pair_id_to_image_pair(pair_id))
        for pair_id in pair_ids
    ]
    unverified = ((*each, None) for each in zip(pairs, rows, strict=True))
    colmap.write_database(theirs, owners, keypoints.__getitem__, unverified)
    verify_database(theirs)
    with colmap.database.opened(theirs) as database:
        geometries = [
            colmap.two_view.from_colmap(g, 15)
            for g in (
                database.read_two_view_geometry(*(owner_id(images, n) for n in pair))
                for pair in pairs
            )
        ]
    colmap.write_database(
        ours, owners, keypoints.__getitem__, zip(pairs, rows, geometries, strict=True)
    )
    return theirs, ours


def owner_id(images: dict[int, Any], name: str) -> int:
    return next(i for i, image in images.items() if image.name == name)


def test_a_written_geometry_is_what_colmap_would_have_written(verified: tuple[Path, Path]) -> None:
    tables = ("cameras", "images", "keypoints", "matches", "two_view_geometries")
    contents = []
    for path in verified:
        with sqlite3.connect(path) as connection:
            rows = [connection.execute(f"SELECT * FROM {t} ORDER BY 1").fetchall() for t in tables]
        contents.append(dict(zip(tables, rows, strict=True)))
    assert len(contents[0]["two_view_geometries"]) == 15
    assert contents[0] == contents[1]


@pytest.mark.parametrize("method", ["incremental", "global"])
def test_the_same_model_comes_of_it(
    verified: tuple[Path, Path], square: Any, tmp_path: Path, method: str
) -> None:
    mapper = colmap.MapperOptions(seed=0, threads=1)
    common: dict[str, Any] = {"constant_cameras": {1}, "min_model_size": 3}
    models = [
        colmap.map_images(method, path, square.images, tmp_path / path.stem, mapper, **common)[0]
        for path in verified
    ]
    points = [
        sorted((p.xyz.tolist(), len(p.track.elements)) for p in m.points3D.values()) for m in models
    ]
    assert len(points[0]) > 50
    assert points[0] == points[1]
    poses = [colmap.model_poses(model) for model in models]
    assert len(poses[0]) == 6
    for name, pose in poses[0].items():
        np.testing.assert_array_equal(poses[1][name], pose)
