"""Models without photos in common, joined by matches between their photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation
from test_joining import NAMES, SIZE, elsewhere, scene, tracks

import reconstruct
from reconstruct import colmap, cross_matching
from reconstruct.errors import EstimationError, UsageError
from reconstruct.evaluation.poses import pose_metrics
from reconstruct.point_similarity import Sightings, similarity_from_sightings
from reconstruct.retrieval.aggregation import Aggregation
from reconstruct.retrieval.index import GlobalIndex, write_index
from reconstruct.similarity import similarity_from_points
from reconstruct.stages.evaluate import aligned
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.shard_file import Record
from reconstruct.storage.shards import ShardStore
from reconstruct.types import LocalFeatures

POINTS = 400
"""Of the street that `scene` makes."""


def numbers(name: str) -> np.ndarray:
    """(N,) a number of what each keypoint of a photo sees, in all photos the same: of its point, or
    a number of its own if no other photo sees it."""
    ids = colmap.Tracks(scene(NAMES)).points(name)
    own = POINTS * (1 + NAMES.index(name)) + np.arange(len(ids))
    return np.where(ids < 0, own, ids)


def output(
    folder: Path, names: list[str], *, moved: bool = False, seed: int = 5, **local: object
) -> Path:
    """A folder as a run leaves it, with features that say what each keypoint sees.

    moved: the model stands elsewhere. seed: of the descriptors.
    """
    model = scene(names, noise_px=0.2)
    described = np.random.default_rng(seed).normal(size=(POINTS * 10, 32)).astype(np.float32)
    described /= np.linalg.norm(described, axis=1, keepdims=True)
    records = []
    for name in names:
        keypoints = colmap.Tracks(model).keypoints(name).astype(np.float32)
        ones = np.ones(len(keypoints), np.float32)
        features = LocalFeatures(
            keypoints=keypoints,
            scales=ones,
            scores=ones,
            descriptors=described[numbers(name)],
            image_size=SIZE,
        )
        records.append(FeatureStore.record(name, "made up", features))
    folder.mkdir()
    FeatureStore(folder / "features").write(records, 0)
    colmap.write_model(elsewhere(model) if moved else model, folder / "sparse")
    extract = {"local": {"name": "sift", **local}}
    (folder / "run.yaml").write_text(yaml.safe_dump({"config": {"extract": extract}}))
    return folder


def test_halves_without_shared_photos_become_the_whole(tmp_path: Path) -> None:
    first = output(tmp_path / "first", NAMES[:4])
    second = output(tmp_path / "second", NAMES[4:], moved=True)
    joined = reconstruct.join([first, second], tmp_path / "out", device="cpu")
    assert joined.model is not None
    truth, poses = colmap.model_poses(scene(NAMES)), colmap.model_poses(joined.model)
    found = pose_metrics(aligned(poses, truth), truth)
    assert found.registered == 8
    assert found.position_max < 0.02
    figures = joined.summary.figures["join"]
    assert figures["linked_photos"] >= 3
    assert figures["linked_points"] >= 30
    # What both halves see is one point with one track, and so is what one photo of a half saw.
    whole = {track for track in tracks(scene(NAMES)) if len(track) > 2}
    assert len(whole & tracks(joined.model)) > 0.9 * len(whole)


def test_what_does_not_overlap_is_refused(tmp_path: Path) -> None:
    first = output(tmp_path / "first", NAMES[:4])
    second = output(tmp_path / "second", NAMES[4:], seed=6)
    with pytest.raises(EstimationError, match=r"shares 0 photos .* 0 of 0 matches .* 30 points"):
        reconstruct.join([first, second], tmp_path / "out", device="cpu")
    assert not (tmp_path / "out" / "sparse").exists()
    with pytest.raises(EstimationError, match=r"output folders with features"):
        reconstruct.join([first / "sparse", second], tmp_path / "out", device="cpu")


def test_many_photos_are_matched_with_the_most_similar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_matching, "FEW_PAIRS", 8)
    first = output(tmp_path / "first", NAMES[:4])
    second = output(tmp_path / "second", NAMES[4:], moved=True)
    with pytest.raises(UsageError, match=r"16 pairs .* extract\.global\.name=gem"):
        reconstruct.join([first, second], tmp_path / "out", device="cpu")
    for folder, names in ((first, NAMES[:4]), (second, NAMES[4:])):
        rows = {n: np.exp(-((np.arange(8.0) - NAMES.index(n)) ** 2)) for n in names}
        described = np.stack([row / np.linalg.norm(row) for row in rows.values()])
        ShardStore(folder / "global").write(
            [Record(n, "made up", {"rows": row[None]}) for n, row in rows.items()], 0
        )
        index = GlobalIndex(names=tuple(names), descriptors=described, aggregation=Aggregation())
        write_index(folder / "global" / "index.h5", index)
        settings = yaml.safe_load((folder / "run.yaml").read_text())
        settings["config"]["extract"]["global"] = {"name": "gem"}
        (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    joined = reconstruct.join([first, second], tmp_path / "out", neighbors=1, device="cpu")
    # Each is most like the nearest along the street, at the seam between 3 and 4.
    assert joined.summary.figures["join"]["linked_pairs"] <= 7
    assert joined.summary.figures["join"]["registered_images"] == 8


def test_features_of_two_kinds_are_refused(tmp_path: Path) -> None:
    first = output(tmp_path / "first", NAMES[:4])
    second = output(tmp_path / "second", NAMES[4:], max_edge=300)
    with pytest.raises(UsageError, match=r"different features.*same extract\.local"):
        reconstruct.join([first, second], tmp_path / "out", device="cpu")


def test_the_similarity_of_points() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(10, 3))
    turn = Rotation.from_euler("xyz", [20, 40, 70], degrees=True).as_matrix()
    scale, rotation, translation = similarity_from_points(points, 2.5 * points @ turn.T + [1, 2, 3])
    assert scale == pytest.approx(2.5)
    np.testing.assert_allclose(rotation, turn, atol=1e-12)
    np.testing.assert_allclose(translation, [1, 2, 3], atol=1e-12)
    with pytest.raises(EstimationError, match="three points"):
        similarity_from_points(points[:2], points[:2])
    with pytest.raises(EstimationError, match="on a line"):
        similarity_from_points(np.outer(range(4), [1, 2, 3]), np.outer(range(4), [3, 2, 1]))


def test_matches_agree_on_a_similarity_among_wrong_ones() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform([-1, -1, 4], [1, 1, 6], (200, 3))
    pose = np.column_stack([np.eye(3), [0.3, 0, 0]])
    other = np.column_stack([np.eye(3), [-0.3, 0, 0]])

    turn = Rotation.from_euler("z", 30, degrees=True).as_matrix()

    def sightings(pose: np.ndarray, scale: float, turn: np.ndarray) -> Sightings:
        local = points @ pose[:, :3].T + pose[:, 3]
        there = np.column_stack([pose[:, :3] @ turn.T, scale * pose[:, 3]])
        return Sightings(
            points=scale * points @ turn.T,
            rays=local[:, :2] / local[:, 2:],
            poses=np.broadcast_to(there, (200, 3, 4)),
            focal_px=np.full(200, 500.0),
        )

    source, target = sightings(pose, 3.0, turn), sightings(other, 1.0, np.eye(3))
    wrong = np.arange(200) < 80
    shuffled = rng.permutation(80)
    source.points[:80] = source.points[:80][shuffled]
    target.points[180:] = np.nan  # their keypoints see no point yet
    found = similarity_from_sightings(source, target, 4.0)
    assert found is not None
    assert found.scale == pytest.approx(1 / 3, rel=1e-6)
    np.testing.assert_allclose(found.rotation, turn.T, atol=1e-6)
    assert found.agreeing[~wrong].all()
    assert found.agreeing[wrong].sum() < 8
    nothing = source.select(np.arange(200) < 2)
    assert similarity_from_sightings(nothing, nothing, 4.0) is None
