"""From matches to poses, and a whole run on the made-up square in Aachen's layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

import reconstruct
from reconstruct import colmap
from reconstruct.datasets.scene import look_at
from reconstruct.errors import ConfigError, UsageError
from reconstruct.evaluation.localization import query_errors
from reconstruct.geometry import projection_center
from reconstruct.localization.localizer import Localizer
from reconstruct.localization.pose import (
    LocalizeConfig,
    estimate,
    lift_matches,
    localize_matches,
)
from reconstruct.localization.refine_query import agreeing_matches, most_alike
from reconstruct.retrieval.index import read_index
from reconstruct.storage.poses import read_poses
from reconstruct.storage.queries import read_intrinsics
from reconstruct.types import Intrinsics

PINHOLE = Intrinsics(model="SIMPLE_PINHOLE", size=(640, 480), params=(500.0, 320.0, 240.0))
NAMES = ("query/day/synthetic/day-00.jpg", "query/night/synthetic/night-01.jpg")
REFINED = {
    "match.filter": {},
    "refine.method": "multiview",
    "localize.refine.method": "multiview",
}


def test_matches_are_lifted_and_merged() -> None:
    points = {"a": np.array([7, -1, 9]), "b": np.array([9, 8])}
    matches = {
        "a": np.array([[0, 0], [1, 1], [4, 2]], np.uint32),
        "b": np.array([[4, 0], [0, 1]], np.uint32),
    }
    index, ids = lift_matches(matches, points)
    # Keypoint 4 sees point 9 in both photos: once; keypoint 0 keeps both of its candidates.
    assert list(zip(index, ids, strict=True)) == [(0, 7), (0, 8), (4, 9)]


def test_nothing_to_lift() -> None:
    for matches in ({}, {"a": np.zeros((0, 2), np.uint32)}):
        index, ids = lift_matches(matches, {"a": np.array([1])})
        assert len(index) == len(ids) == 0


class Scene:
    """60 points before two groups of cameras that share none, and a query that sees them."""

    def __init__(self, outliers: int = 0) -> None:
        rng = np.random.default_rng(0)
        self.camera = colmap.make_camera(PINHOLE.model, PINHOLE.params, PINHOLE.size)
        self.pose = look_at((0.3, -6.0, 1.0), (0, 0, 0.5))
        xyz = rng.uniform(-1.5, 1.5, (60, 3))
        in_camera = xyz @ self.pose[:, :3].T + self.pose[:, 3]
        pixels = np.asarray(self.camera.img_from_cam(in_camera))
        pixels[:outliers] = rng.uniform(0, 480, (outliers, 2))
        self.keypoints = pixels.astype(np.float32)
        elsewhere = rng.uniform(20, 22, (15, 3))
        seen = np.arange(60)
        far = 60 + np.arange(15)
        spots = rng.uniform(0, 480, (60, 2))
        images = [
            ("near1", PINHOLE, self.pose, spots, seen),
            ("near2", PINHOLE, self.pose, spots, seen),
            ("far1", PINHOLE, self.pose, spots[:15], far),
            ("far2", PINHOLE, self.pose, spots[:15], far),
        ]
        self.tracks = colmap.Tracks(colmap.build_model(images, np.concatenate([xyz, elsewhere])))

    def matches(self, *names: str) -> dict[str, np.ndarray]:
        count = {name: len(self.tracks.points(name)) for name in names}
        return {
            name: np.tile(np.arange(count[name], dtype=np.uint32)[:, None], 2) for name in names
        }

    def localize(self, *names: str, focal: bool = False, **settings: Any) -> Any:
        config = LocalizeConfig(**settings)
        keypoints, matches = self.keypoints, self.matches(*names)
        return localize_matches(
            "q", keypoints, matches, self.tracks, self.camera, config, refine_focal=focal, seed=0
        )


def test_pose_of_exact_matches() -> None:
    scene = Scene()
    found = scene.localize("near1", "near2")
    assert (found.status, found.matches, found.inliers) == ("ok", 60, 60)
    np.testing.assert_allclose(found.cam_from_world, scene.pose, atol=1e-4)
    assert found.covariance.shape == (6, 6)
    assert found.params == PINHOLE.params


def test_pose_among_outliers_and_twice_the_same() -> None:
    scene = Scene(outliers=25)
    found, again = (scene.localize("near1", max_error_px=4.0) for _ in range(2))
    assert found.status == "ok"
    assert 33 <= found.inliers <= 37
    np.testing.assert_allclose(found.cam_from_world, scene.pose, atol=5e-3)
    np.testing.assert_array_equal(found.cam_from_world, again.cam_from_world)


def test_exact_keypoints_decide_among_others() -> None:
    """A third of the keypoints is off by a pixel, the others by 0.02."""
    errors = []
    for seed in range(5):
        scene = Scene()
        rng = np.random.default_rng(seed)
        noise = rng.normal(size=(60, 2)) * rng.choice([0.02, 0.02, 1.0], size=(60, 1))
        scene.keypoints = scene.keypoints + noise.astype(np.float32)
        found = scene.localize("near1", "near2").cam_from_world
        errors.append(np.linalg.norm(projection_center(found) - projection_center(scene.pose)))
    # A loss of one pixel leaves 7 mm, squares leave 13.
    assert np.mean(errors) < 2e-3


def test_focal_length_is_estimated_where_asked() -> None:
    scene = Scene()
    scene.camera.focal_length = 620.0
    found = scene.localize("near1", focal=True)
    assert found.status == "ok"
    assert found.params[0] == pytest.approx(500.0, abs=0.1)
    assert scene.camera.focal_length == 620.0  # what was given is not changed
    np.testing.assert_allclose(found.cam_from_world, scene.pose, atol=1e-3)


def test_failures_have_a_status_and_no_pose() -> None:
    none = Scene().localize()
    assert (none.status, none.matches, none.cam_from_world) == ("too_few_matches", 0, None)
    few = Scene().localize("far1", min_inliers=16)
    assert (few.status, few.matches) == ("too_few_matches", 15)
    lost = Scene(outliers=60).localize("near1", max_error_px=1.0)
    assert (lost.status, lost.matches, lost.cam_from_world) == ("ransac_failed", 60, None)


def test_clusters_keep_places_apart() -> None:
    scene = Scene()
    found = scene.localize("near1", "far1", "near2", "far2", clusters=True, max_error_px=2.0)
    assert (found.status, found.matches, found.inliers) == ("ok", 60, 60)
    merged = scene.localize("near1", "far1", max_error_px=2.0)
    assert merged.matches == 60  # each of 15 keypoints has two candidates, and counts once
    assert merged.status == "ok"


def test_estimate_counts_keypoints_not_candidates() -> None:
    scene = Scene()
    ids = scene.tracks.points("near1")
    twice = np.repeat(np.arange(6), 2), np.repeat(ids[:6], 2)
    config = LocalizeConfig(min_inliers=7)
    found = estimate(
        "q", scene.keypoints, twice, scene.tracks, scene.camera, config, refine_focal=False, seed=0
    )
    assert (found.status, found.matches) == ("too_few_matches", 6)


def test_matches_that_agree_with_a_pose() -> None:
    scene = Scene(outliers=3)
    found = scene.localize("near1", max_error_px=2.0)
    matches = scene.matches("near1", "far1") | {"elsewhere": np.zeros((1, 2), np.uint32)}
    moved = scene.keypoints.copy()
    moved[10] += (0.0, 2.5)
    kept = agreeing_matches(found, moved, matches, scene.tracks, scene.camera, 2.0)
    assert list(kept) == ["near1"]  # what far1 sees lies elsewhere
    assert sorted(set(range(60)) - set(kept["near1"][:, 0].tolist())) == [0, 1, 2, 10]


def test_each_keypoint_has_the_images_most_alike() -> None:
    rows = {"a": [0], "b": [0, 1, 2], "c": [0, 1], "d": []}
    matches = {n: np.array([[k, 9] for k in r], np.uint32).reshape(-1, 2) for n, r in rows.items()}
    kept = most_alike(matches, 2, 4)
    assert {n: r[:, 0].tolist() for n, r in kept.items()} == {"b": [0, 1, 2], "c": [0, 1]}
    assert list(most_alike(matches, 3, 4, least=2)) == ["b", "c"]  # a's affinities would be poor
    assert most_alike({}, 2, 0) == {}


# ------------------------------------------------------------------------------------ whole runs


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipeline") / "aachen.yaml"
    text = (Path(__file__).parents[2] / "pipelines" / "aachen.yaml").read_text()
    data = yaml.safe_load(text)
    data["extract"] = {"local": {"name": "sift"}, "global": {"name": "gem", "max_edge": 64}}
    data["pair"]["queries"]["neighbors"] = 4
    data["map"]["threads"] = 1
    data["localize"] = {"max_error_px": 4.0, "min_inliers": 10}
    path.write_text(yaml.safe_dump(data))
    return path


@pytest.fixture(scope="session")
def localized(town: Path, pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run on the town. Not to be changed: copy it."""
    output = tmp_path_factory.mktemp("localized") / "out"
    truth = {"dataset.root": str(town), "evaluate.reference": str(town / "ground_truth.txt")}
    run = reconstruct.run(pipeline, output=output, overrides=truth, verbosity=-1)
    assert run.summary.skipped == {}
    return output


def _again(pipeline: Path, town: Path, output: Path, **more: Any) -> dict[str, Any]:
    truth = {"dataset.root": str(town), "evaluate.reference": str(town / "ground_truth.txt")}
    run = reconstruct.run(pipeline, output=output, overrides=truth | more, verbosity=-1)
    return run.summary.figures


def _camera(town: Path, name: str) -> Intrinsics:
    path = town / "queries" / "day_time_queries_with_intrinsics.txt"
    known = read_intrinsics(path, colmap.is_camera_model)[name]
    assert known is not None
    return known


def test_day_queries_are_found(localized: Path, town: Path) -> None:
    errors = query_errors(
        read_poses(localized / "poses.txt"), read_poses(town / "ground_truth.txt")
    )
    for name, (metres, degrees) in errors.items():
        if "/day/" in name:
            assert metres < 0.25, name
            assert degrees < 2.0, name
    metrics = json.loads((localized / "metrics.json").read_text())["queries"]
    assert metrics["day"]["within_percent"]["0.25 m, 2 deg"] == 100.0
    assert set(metrics) == {"all", "day", "night"}
    assert (localized / "Aachen_eval_[d2net].txt").is_file()


def test_map_keeps_the_reference_and_has_no_query(localized: Path, town: Path) -> None:
    poses = colmap.model_poses(colmap.read_model(localized / "sparse"))
    given = colmap.model_poses(colmap.read_model(localized / "dataset" / "reference"))
    assert sorted(poses) == sorted(given)
    for name, pose in given.items():
        np.testing.assert_allclose(poses[name], pose, atol=1e-9)


def test_nothing_is_done_twice(localized: Path, town: Path, pipeline: Path) -> None:
    before = (localized / "poses.txt").read_bytes()
    figures = _again(pipeline, town, localized)
    assert figures["localize"]["estimated_now"] == 0
    assert (localized / "poses.txt").read_bytes() == before
    plans = reconstruct.plan(
        pipeline,
        output=localized,
        overrides={
            "dataset.root": str(town),
            "evaluate.reference": str(town / "ground_truth.txt"),
        },
    )
    assert {name: found.state for name, found in plans} == dict.fromkeys(dict(plans), "done")


def test_refined_queries_are_closer(
    localized: Path, town: Path, pipeline: Path, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(localized, tmp_path / "out"))
    truth = read_poses(town / "ground_truth.txt")
    before = query_errors(read_poses(output / "poses.txt"), truth)
    _again(pipeline, town, output, **REFINED)
    poses = read_poses(output / "poses.txt")
    after = query_errors(poses, truth)
    day = [name for name in truth if "/day/" in name]
    assert sum(after[name][0] for name in day) < 0.7 * sum(before[name][0] for name in day)
    figures = _again(pipeline, town, output, **REFINED)
    assert figures["localize"]["estimated_now"] == 0
    # One photo by itself comes to the same pose, and says what it needs.
    photo, camera = town / "images_upright" / NAMES[0], _camera(town, NAMES[0])
    alone = Localizer(output, neighbors=4, device="cpu")(photo, camera)
    assert alone.cam_from_world is not None
    np.testing.assert_allclose(alone.cam_from_world, poses[NAMES[0]], atol=1e-6)
    with pytest.raises(UsageError, match=r"photo of the map is not there; localize\.refine"):
        Localizer(output, photos=tmp_path, device="cpu")


def test_lost_estimates_come_back_the_same(
    localized: Path, town: Path, pipeline: Path, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(localized, tmp_path / "out"))
    before = (output / "poses.txt").read_bytes()
    shutil.rmtree(output / "localized")
    figures = _again(pipeline, town, output)
    assert figures["localize"]["estimated_now"] == 4
    assert (output / "poses.txt").read_bytes() == before


def test_queries_may_be_localized_elsewhere(
    localized: Path, town: Path, pipeline: Path, tmp_path: Path, elsewhere: None
) -> None:
    output = Path(shutil.copytree(localized, tmp_path / "out"))
    shutil.rmtree(output / "features")
    shutil.rmtree(output / "localized")
    assert _again(pipeline, town, output)["localize"]["estimated_now"] == 4
    for folder in ("features", "global", "localized"):
        for path in (localized / folder).glob("*.h5"):
            assert path.read_bytes() == (output / folder / path.name).read_bytes()


def test_lost_rows_come_back_without_touching_features(
    localized: Path, town: Path, pipeline: Path, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(localized, tmp_path / "out"))
    before = read_index(output / "global" / "index.h5")
    features = {p.name: p.stat().st_mtime_ns for p in (output / "features").glob("*.h5")}
    (output / "global" / "part-00001.h5").unlink()
    figures = _again(pipeline, town, output)
    assert figures["extract"]["extracted_now"] == 2  # a shard
    assert figures["localize"]["estimated_now"] == 0
    after = read_index(output / "global" / "index.h5")
    assert after.names == before.names
    np.testing.assert_array_equal(after.descriptors, before.descriptors)
    assert {p.name: p.stat().st_mtime_ns for p in (output / "features").glob("*.h5")} == features


def test_a_failed_query_is_listed_and_absent(
    localized: Path, town: Path, pipeline: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(town, tmp_path / "aachen"))
    output = Path(shutil.copytree(localized, tmp_path / "out"))
    stamp = (output / "sparse" / "points3D.bin").stat().st_mtime_ns
    photo = root / "images_upright" / NAMES[0]
    noise = np.random.default_rng(0).integers(0, 255, (180, 240, 3), np.uint8)
    cv2.imwrite(str(photo), noise)
    figures = _again(pipeline, root, output)
    assert figures["localize"]["estimated_now"] == 1  # the others stand
    assert (output / "sparse" / "points3D.bin").stat().st_mtime_ns == stamp  # and so does the map
    assert figures["localize"]["failed"][0].startswith(NAMES[0])
    assert NAMES[0] not in read_poses(output / "poses.txt")
    assert "day-00" not in (output / "Aachen_eval_[d2net].txt").read_text()


@pytest.mark.parametrize(
    "change",
    [
        {"extract.global": {"name": "vlad", "max_edge": 64, "clusters": 4}},
        {"pair.method": "retrieval", "verify.known_poses": False, "localize.verify_pairs": True},
        {
            "pair.method": "poses",
            "pair.queries": {"method": "exhaustive"},
            "localize.clusters": True,
        },
    ],
)
def test_other_ways_to_the_same_poses(
    localized: Path, town: Path, pipeline: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    output = Path(shutil.copytree(localized, tmp_path / "out"))
    _again(pipeline, town, output, **change)
    metrics = json.loads((output / "metrics.json").read_text())["queries"]
    assert metrics["day"]["within_percent"]["0.25 m, 2 deg"] == 100.0


def test_one_photo_against_the_map(localized: Path, town: Path) -> None:
    name = NAMES[0]
    photo = town / "images_upright" / name
    camera = _camera(town, name)
    localizer = Localizer(localized, neighbors=4, device="cpu")
    found = localizer(photo, camera)
    assert found.status == "ok"
    np.testing.assert_allclose(
        found.cam_from_world, read_poses(localized / "poses.txt")[name], atol=1e-6
    )
    guessed = reconstruct.localize(localized, str(photo), neighbors=8, device="cpu")
    assert guessed.status == "ok"
    assert guessed.cam_from_world is not None
    with pytest.raises(UsageError, match="required with an array"):
        localizer(np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(UsageError, match="240 x 180"):
        localizer(np.zeros((10, 10, 3), np.uint8), camera)
    black = localizer(np.zeros((180, 240, 3), np.uint8), camera)
    assert (black.status, black.cam_from_world) == ("too_few_matches", None)


def test_one_photo_against_a_map_without_global_descriptors(finished: Path, square: Any) -> None:
    camera = next(iter(colmap.model_cameras(colmap.read_model(square.reference)).values()))
    found = reconstruct.localize(finished, square.images / square.names[2], camera, device="cpu")
    pose = colmap.model_poses(colmap.read_model(finished / "sparse"))[square.names[2]]
    assert found.cam_from_world is not None
    np.testing.assert_allclose(found.cam_from_world, pose, atol=0.02)


def test_no_map_to_localize_in(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="run the pipeline first"):
        reconstruct.localize(tmp_path, tmp_path / "photo.jpg")


def test_own_photos_against_a_finished_map(
    square: Any, finished: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    """pipelines/localize.yaml: a folder of queries, the map an output folder."""
    photos = tmp_path / "photos"
    (photos / "new").mkdir(parents=True)
    for name in square.names:
        shutil.copy(
            square.images / name, photos / ("new" if name == square.names[3] else "") / name
        )
    data = yaml.safe_load((Path(__file__).parents[2] / "pipelines" / "localize.yaml").read_text())
    data["extract"] = {"local": {"name": "sift"}}
    data["dataset"] |= {"images": str(photos), "queries": str(photos / "new")}
    data["map"]["reference"] = str(finished)
    data["pair"]["queries"] = {"method": "exhaustive"}
    data["evaluate"] = {"reference": str(finished), "thresholds": [[0.1, 2]]}
    path = tmp_path / "localize.yaml"
    path.write_text(yaml.safe_dump(data))
    outcome = command("run", path, "--output", tmp_path / "out")
    # The truth's name lies in another folder: nothing to compare with, and it says so.
    assert outcome.status == 1
    assert "has no pose of any query" in outcome.err
    poses = read_poses(tmp_path / "out" / "poses.txt")
    truth = colmap.model_poses(colmap.read_model(finished / "sparse"))[square.names[3]]
    errors = query_errors(poses, {f"new/{square.names[3]}": truth})
    # Focal length estimated along with the pose: centimetres, not millimetres.
    assert errors[f"new/{square.names[3]}"][0] < 0.3


def test_a_map_of_poses_alone_is_paired_by_its_poses(
    square: Any, pipeline: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = yaml.safe_load(pipeline.read_text())
    queries = tmp_path / "queries.txt"
    queries.write_text(f"{square.names[0]}\n")
    images = {"format": "folder", "images": str(square.images), "queries": str(queries)}
    data |= {"dataset": images, "evaluate": {"submission": "x"}}
    data["map"]["reference"] = str(square.reference)
    data["pair"]["queries"] = {"method": "exhaustive"}
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump(data))
    with caplog.at_level("INFO"):
        run = reconstruct.run(path, output=tmp_path / "out")
    assert "has poses alone" in caplog.text
    truth = colmap.model_poses(colmap.read_model(square.reference))[square.names[0]]
    pose = read_poses(run.output / "poses.txt")[square.names[0]]
    assert query_errors({"q": pose}, {"q": truth})["q"][0] < 0.3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extract": {"local": {"name": "sift"}}}, r"needs section `extract\.global`"),
        ({"map": {"method": "incremental", "reference": "x"}}, "goes with `method: triangulate`"),
        ({"dataset": {"format": "folder", "images": "IMAGES"}}, r"needs dataset\.queries"),
        ({"map": None}, "needs section"),
        ({"evaluate": {}}, "needs `reference`"),
    ],
)
def test_settings_that_do_not_go_together(
    town: Path, pipeline: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    data = yaml.safe_load(pipeline.read_text())
    data["dataset"]["root"] = str(town)
    data |= change
    text = yaml.safe_dump({key: value for key, value in data.items() if value is not None})
    path = tmp_path / "p.yaml"
    path.write_text(text.replace("IMAGES", str(town / "images_upright")))
    with pytest.raises(ConfigError, match=message):
        reconstruct.run(path, output=tmp_path / "out", verbosity=-1)
