"""Places that look alike: two rooms with the same furniture, and a wall that differs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import reconstruct
from reconstruct import colmap
from reconstruct.errors import ConfigError
from reconstruct.matching.disambiguation import ConflictConfig, disambiguate, part, reunite
from reconstruct.stages.disambiguate import read_disambiguation
from reconstruct.types import Intrinsics
from reconstruct.workspace import Workspace

SIZE = (640, 480)
CAMERA = Intrinsics(model="PINHOLE", size=SIZE, params=(500.0, 500.0, 320.0, 240.0))
ROOMS = [[f"a{i}.jpg" for i in range(5)], [f"b{i}.jpg" for i in range(5)]]
NAMES = ROOMS[0] + ROOMS[1]
FURNITURE, WALL = 200, 100


def rooms(wall_depth: float = 0.0) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(P, 3) points: furniture that both rooms have, the wall of the first, that of the second, in
    the frame of its own room; and the numbers of the points that a photo may see.

    wall_depth: how much farther the second wall is.
    """
    rng = np.random.default_rng(0)
    furniture = rng.uniform([-3, -1.5, 4], [0.8, 1.5, 6], (FURNITURE, 3))
    walls = [rng.uniform([1.2, -1.5, 4.9], [3.2, 1.5, 5.1], (WALL, 3)) for _ in range(2)]
    walls[1][:, 2] += wall_depth
    common = np.arange(FURNITURE)
    own = [np.append(common, FURNITURE + WALL * room + np.arange(WALL)) for room in range(2)]
    return np.concatenate([furniture, *walls]), {
        name: own[room] for room, names in enumerate(ROOMS) for name in names
    }


def seen(name: str, points: np.ndarray, may: np.ndarray) -> tuple[np.ndarray, ...]:
    """Pose of a photo, the numbers of the points it sees, and their (N, 2) pixels."""
    step = 0.4 * int(name[1]) + (0.2 if name[0] == "b" else 0.0)
    pose = np.column_stack([np.eye(3), [-step + 0.8, 0.1 * (int(name[1]) % 2), 0.0]])
    local = points[may] + pose[:, 3]
    pixels = local[:, :2] / local[:, 2:] * 500 + [320, 240]
    inside = ((pixels > 0) & (pixels < SIZE)).all(1)
    noise = np.random.default_rng([1, *name.encode()]).normal(0, 0.3, (inside.sum(), 2))
    return pose, may[inside], pixels[inside] + noise


def folded(points: np.ndarray, may: dict[str, np.ndarray]) -> colmap.Reconstruction:
    """One room laid over the other."""
    views = {name: seen(name, points, may[name]) for name in NAMES}
    return colmap.build_model([(n, CAMERA, v[0], v[2], v[1]) for n, v in views.items()], points)


def matched() -> dict[tuple[str, str], int]:
    return {(a, b): 150 for i, a in enumerate(NAMES) for b in NAMES[i + 1 :]}


def test_rooms_that_differ_in_a_wall_are_parted() -> None:
    found = disambiguate([folded(*rooms())], matched(), ConflictConfig())
    assert found.places == ROOMS
    assert len(found.removed) == 25
    assert found.conflicts.keys() <= set(found.removed)


def test_what_lies_behind_or_is_not_looked_at_is_no_conflict() -> None:
    behind = folded(*rooms(wall_depth=1.0))  # the first wall stands before it
    assert disambiguate([behind], matched(), ConflictConfig()).places == [NAMES]
    points, may = rooms()
    hidden = {n: own if n in ROOMS[0] else own[:FURNITURE] for n, own in may.items()}
    assert disambiguate([folded(points, hidden)], matched(), ConflictConfig()).places == [NAMES]
    assert disambiguate([], matched(), ConflictConfig()).places == [NAMES]
    assert disambiguate([], {}, ConflictConfig()).places == []


def test_groups_are_joined_by_share_and_kept_apart_by_conflicts() -> None:
    chain = {("a", "b"): 0.9, ("c", "d"): 0.8, ("b", "c"): 0.7, ("a", "d"): 0.0}
    assert part(chain, []) == [["a", "b", "c", "d"]]
    assert part(chain, [("a", "d")]) == [["a", "b"], ["c", "d"]]
    assert part(chain, [("c", "d")]) == [["a", "b", "c"], ["d"]]
    assert part({}, []) == []


def test_a_conflict_of_few_matches_does_not_part_many() -> None:
    groups = [["a", "b"], ["c", "d"]]
    matches = {("a", "b"): 50, ("a", "c"): 900, ("b", "d"): 100}
    assert reunite(groups, matches, {("b", "d"): 49.0}, 0.05) == [["a", "b", "c", "d"]]
    assert reunite(groups, matches, {("b", "d"): 50.0}, 0.05) == groups
    assert reunite([["a", "b"], ["e"]], {("a", "b"): 50}, {}, 0.05) == [["a", "b"], ["e"]]


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """Photos of both rooms as features, and a pipeline file that takes them."""
    points, may = rooms()
    described = np.random.default_rng(2).normal(size=(len(points), 32))
    (tmp_path / "photos").mkdir()
    for name in NAMES:
        _, numbers, pixels = seen(name, points, may[name])
        path = tmp_path / "photos" / name
        Image.new("RGB", SIZE).save(path)
        with open(f"{path}.precomputed", "wb") as file:
            np.savez(file, keypoints=pixels - 0.5, descriptors=described[numbers])
    file = tmp_path / "rooms.yaml"
    file.write_text(
        "name: rooms\n"
        f"dataset: {{format: folder, images: {tmp_path / 'photos'}, "
        f"cameras: {{model: PINHOLE, params: {list(CAMERA.params)}}}}}\n"
        "extract: {local: {name: precomputed}}\n"
        "pair: {method: exhaustive}\nmatch: {method: mutual_nn}\nverify: {}\n"
        "map: {threads: 1}\n"
    )
    return file


def registered(output: Path) -> list[list[str]]:
    models = Workspace(output).models()
    return sorted(sorted(colmap.model_poses(colmap.read_model(path))) for path in models)


def test_rooms_that_look_alike_end_apart(pipeline: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    reconstruct.run(pipeline, output=output, verbosity=-1)
    assert registered(output) == [NAMES], "one room is laid over the other"
    found = reconstruct.run(pipeline, output=output, overrides={"disambiguate": {}}, verbosity=-1)
    assert registered(output) == ROOMS
    assert found.summary.figures["disambiguate"]["pairs_removed"] == 25
    assert read_disambiguation(Workspace(output)).places == ROOMS
    assert not list(output.glob("draft*")), "the first model is gone"
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "Removed: looks alike" in page
    again = reconstruct.run(pipeline, output=output, overrides={"disambiguate": {}}, verbosity=-1)
    assert again.summary.seconds == found.summary.seconds, "nothing was to do"
    loose = {"disambiguate": {"tolerance": 1e6}}
    reconstruct.run(pipeline, output=output, overrides=loose, verbosity=-1)
    assert registered(output) == [NAMES]


def test_known_poses_need_no_disambiguation(pipeline: Path, tmp_path: Path) -> None:
    overrides = {"disambiguate": {}, "map": {"method": "triangulate"}}
    with pytest.raises(ConfigError, match="looks for poses"):
        reconstruct.run(pipeline, output=tmp_path / "out", overrides=overrides, verbosity=-1)
