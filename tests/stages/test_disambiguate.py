"""Places that look alike: two rooms with the same furniture, and a wall that differs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import reconstruct
from reconstruct import colmap
from reconstruct.errors import ConfigError
from reconstruct.matching.appearance import Appearance, appearance, find_planes, likeness
from reconstruct.matching.conflicts import ConflictConfig, View, contradiction, model_views
from reconstruct.matching.disambiguation import PlacesConfig, cut, disambiguate, groups_of
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


PAIRS = [(a, b) for i, a in enumerate(NAMES) for b in NAMES[i + 1 :]]


def plain(name: str, view: View) -> Appearance:
    """A photo without texture."""
    return appearance(view, np.full((480, 640, 3), 128, np.uint8))


def never(name: str, view: View) -> Appearance:
    raise AssertionError(f"{name} is looked at though nothing is in conflict")


def test_rooms_that_differ_in_a_wall_are_parted() -> None:
    found = disambiguate([folded(*rooms())], PAIRS, PlacesConfig(), plain)
    assert found.places == ROOMS
    assert len(found.removed) == 25
    assert found.conflicts.keys() <= set(found.removed)


def test_what_lies_behind_or_is_not_looked_at_is_no_conflict() -> None:
    behind = folded(*rooms(wall_depth=1.0))  # the first wall stands before it
    assert disambiguate([behind], PAIRS, PlacesConfig(), never).places == [NAMES]
    points, may = rooms()
    hidden = {n: own if n in ROOMS[0] else own[:FURNITURE] for n, own in may.items()}
    assert disambiguate([folded(points, hidden)], PAIRS, PlacesConfig(), never).places == [NAMES]
    assert disambiguate([], PAIRS, PlacesConfig(), never).removed == []


def test_odds_are_those_of_the_squares() -> None:
    views = model_views(folded(*rooms()))
    same, one = contradiction(views["a1.jpg"], views["a2.jpg"], ConflictConfig())
    other, shared = contradiction(views["a1.jpg"], views["b1.jpg"], ConflictConfig())
    assert same < 0 < 10 < other
    assert other == contradiction(views["b1.jpg"], views["a1.jpg"], ConflictConfig())[0]
    assert 0 < shared < one
    assert one / np.log(0.95 / 0.5) == pytest.approx(round(one / np.log(0.95 / 0.5)))


def test_two_photos_in_conflict_with_the_others_are_no_place() -> None:
    points, may = rooms()
    may = {name: may[name] for name in (*ROOMS[0], "b2.jpg", "b3.jpg")}
    views = {name: seen(name, points, may[name]) for name in may}
    rows = [(n, CAMERA, v[0], v[2], v[1]) for n, v in views.items()]
    pairs = [pair for pair in PAIRS if set(pair) <= may.keys()]
    found = disambiguate([colmap.build_model(rows, points)], pairs, PlacesConfig(), never)
    assert found.conflicts
    assert not found.removed


def views_of(ids: list[list[int]]) -> dict[str, View]:
    """Photos that see these points."""
    return {
        f"{i}.jpg": View(np.array(own), np.zeros((len(own), 3)), None, None, None)  # type: ignore
        for i, own in enumerate(ids)
    }


def test_groups_are_held_together_by_points() -> None:
    first, second = list(range(10)), list(range(100, 110))
    chain = [first[:6], first[2:], first, [*second, 0, 1], second, second]
    apart = [["0.jpg", "1.jpg", "2.jpg"], ["3.jpg", "4.jpg", "5.jpg"]]
    assert groups_of(views_of(chain), 3) == apart
    assert groups_of(views_of(chain), 2) == [sorted(apart[0] + apart[1])]
    together = [first[:4], first[4:8], [2, 3, 4, 5]]  # the first two share no point
    assert groups_of(views_of(together), 2) == [["0.jpg", "1.jpg", "2.jpg"]]
    assert groups_of(views_of([first, first, first, [0, 200], [300]]), 3) == [
        ["0.jpg", "1.jpg", "2.jpg", "3.jpg"],
        ["4.jpg"],
    ], "one photo is no place, unless it shares nothing"
    assert groups_of({}, 3) == []


def test_a_cut_lets_little_affinity_across() -> None:
    chain = np.diag([5.0, 1.0, 5.0], 1)
    chain[0, 3] = -3.0
    side = cut(chain + chain.T)
    assert side[0] == side[1] != side[2] == side[3]
    assert len(set(cut(np.ones((4, 4)) - np.eye(4)))) == 1


def wall(seed: int) -> np.ndarray:
    """(H, W) soft texture, 100 texels a unit."""
    noise = np.random.default_rng(seed).normal(size=(700, 1100))
    soft = cv2.GaussianBlur(noise, (0, 0), 8)
    return np.asarray(128 + 15 * soft / soft.std(), np.float32)


def looks_at(texture: np.ndarray, shift: float) -> Appearance:
    """A photo of a wall at a distance of 5, from ``shift`` to the right; points along its edge."""
    x, y = np.meshgrid(np.linspace(-2.5, 2.5, 30), [-2.0, 2.0])
    points = np.column_stack([x.ravel(), y.ravel(), np.full(x.size, 5.0)])
    pose = np.column_stack([np.eye(3), [-shift, 0.0, 0.0]])
    pixels = (points + pose[:, 3])[:, :2] / 5.0 * 500 + [320, 240]
    camera = colmap.build_model([("a", CAMERA, pose, pixels, np.arange(60))], points).cameras[1]
    view = View(np.arange(60), points, pixels, camera, pose)
    u, v = np.meshgrid(np.arange(640), np.arange(480))
    warp = [(u + 0.5 - 320 + 100 * shift + 550), (v + 0.5 - 240 + 350)]
    grey = cv2.remap(texture, *(w.astype(np.float32) for w in warp), cv2.INTER_LINEAR)
    return appearance(view, np.repeat(grey.astype(np.uint8)[..., None], 3, 2))


def test_walls_look_alike_between_their_points_or_not() -> None:
    here, moved, other = looks_at(wall(1), 0.0), looks_at(wall(1), 0.6), looks_at(wall(2), 0.6)
    windows, alike = likeness(here, moved)
    assert windows > 50
    assert alike > 0.95
    assert abs(likeness(here, other)[1]) < 0.3
    assert likeness(here, looks_at(np.full((700, 1100), 128, np.float32), 0.6)) == (0.0, 0.0)


def test_planes_are_found_one_after_the_other() -> None:
    rng = np.random.default_rng(0)
    floor, side = rng.uniform(0, 4, (2, 40, 3))
    floor[:, 2], side[:20, 0] = 1.0, 3.0
    planes = find_planes(np.concatenate([floor, side[:20]]), 0.01)
    assert np.allclose(np.abs(planes), [[0, 0, 1, 1], [1, 0, 0, 3]])
    assert find_planes(np.zeros((40, 3)), 0.01) == []


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
    loose = {"disambiguate": {"certainty": 1e6}}
    reconstruct.run(pipeline, output=output, overrides=loose, verbosity=-1)
    assert registered(output) == [NAMES]


def test_known_poses_need_no_disambiguation(pipeline: Path, tmp_path: Path) -> None:
    overrides = {"disambiguate": {}, "map": {"method": "triangulate"}}
    with pytest.raises(ConfigError, match="looks for poses"):
        reconstruct.run(pipeline, output=tmp_path / "out", overrides=overrides, verbosity=-1)
