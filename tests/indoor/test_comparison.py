"""A whole run on a small building: rows, resume, what is missing, and either kind of map."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from synthetic_building import INDOORS, ROOMS, build_room, write_building

import reconstruct
from reconstruct.datasets.rendering import illuminate, render
from reconstruct.datasets.scene import PinholeCamera, View, look_at
from reconstruct.datasets.synthetic import write_depth, write_model, write_photo
from reconstruct.errors import ConfigError
from reconstruct.evaluation.localization import query_errors
from reconstruct.indoor.comparison import draw_errors
from reconstruct.localization.evaluate import read_truth
from reconstruct.storage.poses import read_poses

SIFT: dict[str, Any] = {"name": "sift", "upright": True}
SPARSE: dict[str, Any] = {"method": "sparse", "local": SIFT, "images": 3}
VERIFICATION = {"max_edge": 160, "bin_px": 4, "images": 4}
ROWS: list[dict[str, Any]] = [
    {"label": "direct", "poses": [{"method": "direct", "local": SIFT}]},
    {"label": "sparse", "poses": [SPARSE]},
    {"label": "sparse PV", "poses": [SPARSE], "verification": VERIFICATION},
    {"label": "pooled", "poses": [{**SPARSE, "pooled": True}]},
    {
        "label": "union PV",
        "poses": [{"method": "direct", "local": SIFT}, SPARSE],
        "verification": VERIFICATION,
    },
]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of one room with depth and poses: 14 around its centre, every 7th a query."""
    root = tmp_path_factory.mktemp("room") / "scene"
    lit = illuminate(build_room(ROOMS[0], 50.0), INDOORS)
    camera = PinholeCamera(width=320, height=240, fx=230.0, fy=230.0, cx=160.0, cy=120.0)
    views = []
    for number, angle in enumerate(np.linspace(0, 2 * np.pi, 14, endpoint=False)):
        ahead = np.array([np.cos(angle), np.sin(angle), -0.1])
        center = -0.8 * ahead * [1.2, 1, 0] + [0, 0, 1.45]
        pose = look_at(center, center + ahead)
        views.append(View(name=f"frame-{number:02d}", camera=camera, cam_from_world=pose))
    for view in views:
        found = render(lit, view, np.random.default_rng([0, *view.name.encode()]))
        for folder in ("images", "depth"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        write_photo(root / "images" / f"{view.name}.jpg", found.image)
        write_depth(root / "depth" / f"{view.name}.png", found.depth)
    write_model(root / "reference", views)
    return root


@pytest.fixture(scope="module")
def pipeline(room: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipeline") / "rows.yaml"
    content = {
        "name": "rows",
        "dataset": {"format": "rgbd", "root": str(room), "queries": 7},
        "retrieval": {"local": SIFT, "global": {"name": "gem", "max_edge": 64}, "neighbors": 6},
        "rows": ROWS,
    }
    path.write_text(yaml.safe_dump(content))
    return path


def run(pipeline: Path, output: Path, **more: Any) -> Any:
    overrides = {key.replace("__", "."): value for key, value in more.items()}
    return reconstruct.run(pipeline, output=output, overrides=overrides, verbosity=-1)


@pytest.fixture(scope="module")
def finished(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a run. Not to be changed: copy it."""
    output = tmp_path_factory.mktemp("rows") / "out"
    assert run(pipeline, output).summary.skipped == {}
    return output


def test_every_row_finds_the_queries(finished: Path, room: Path) -> None:
    truth = read_truth(room / "reference")
    for row in ROWS:
        poses = read_poses(finished / "rows" / row["label"] / "poses.txt")
        assert sorted(poses) == ["frame-06.jpg", "frame-13.jpg"]
        for metres, degrees in query_errors(poses, {n: truth[n] for n in poses}).values():
            assert metres < 0.03
            assert degrees < 0.5
    metrics = json.loads((finished / "metrics.json").read_text())["rows"]
    assert list(metrics) == [row["label"] for row in ROWS]
    assert metrics["direct"]["all"]["within_percent"]["0.25 m, 10 deg"] == 100.0
    server = (finished / "rows" / "direct" / "InLoc_eval_[direct].txt").read_text()
    assert server.count("\n") == 2


def test_the_page_has_curves_and_queries_beside_the_map(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "share of queries over position error [m]" in page
    assert all(f"<title>{row['label']}</title>" in page for row in ROWS)
    assert page.count('<figure class="pair">') == 2
    assert re.search(r"frame-06.jpg and frame-\d+.jpg:\s+[\d,]+ inliers", page)


def test_errors_beyond_the_largest_rotation_count_as_failed() -> None:
    errors = {"row": {"a": (0.1, 1.0), "b": (0.1, 20.0), "c": (np.inf, np.inf), "d": (0.5, 1.0)}}
    drawn = draw_errors(errors, [(1.0, 10.0)])
    ends = re.findall(r'd="M([\d. L]+)" stroke-width="2"', drawn)[0].split("L")
    heights = [float(end.split()[1]) for end in ends]
    bottom, top = 26 + 186, 26
    assert heights[0] == bottom, "none is exact"
    assert heights[-1] == pytest.approx(bottom - 0.5 * (bottom - top)), "two of four"


def test_chunks_may_run_in_other_processes(
    finished: Path, pipeline: Path, tmp_path: Path, elsewhere: None
) -> None:
    run(pipeline, tmp_path / "out")
    for row in ROWS:
        path = Path("rows") / row["label"] / "poses.txt"
        assert (tmp_path / "out" / path).read_bytes() == (finished / path).read_bytes()


def test_a_finished_run_does_nothing_and_a_killed_one_goes_on(
    finished: Path, pipeline: Path, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(finished, tmp_path / "out"))
    plans = dict(reconstruct.plan(pipeline, output=output))
    assert {name: plan.state for name, plan in plans.items() if name != "compare"} == dict.fromkeys(
        ["retrieval", *(row["label"] for row in ROWS)], "done"
    )
    for folder in [*(output / "poses").glob("sparse-*"), output / "rows"]:
        shutil.rmtree(folder)
    run(pipeline, output)
    for row in ROWS:
        name = f"rows/{row['label']}/poses.txt"
        assert (output / name).read_text() == (finished / name).read_text()


def test_a_scan_that_cannot_be_read_is_named(
    room: Path, pipeline: Path, finished: Path, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(finished, tmp_path / "out"))
    scene = Path(shutil.copytree(room, tmp_path / "scene"))
    (scene / "depth" / "frame-07.png").write_bytes(b"no picture")
    (scene / "depth" / "frame-03.png").unlink()
    (scene / "images" / "frame-01.jpg").write_bytes(b"no picture either")
    (scene / "images" / "frame-06.jpg").write_bytes(b"nor is this query")
    done = run(pipeline, output, dataset__root=str(scene))
    assert "frame-07.png" in done.summary.skipped["frame-07.jpg"]
    assert "no depth image" in done.summary.skipped["frame-03.jpg"]
    assert {"frame-01.jpg", "frame-06.jpg"} <= set(done.summary.skipped)
    for row in ROWS:
        assert list(read_poses(output / "rows" / row["label"] / "poses.txt")) == ["frame-13.jpg"]


def test_a_lost_query_has_a_status_and_no_pose(
    room: Path, pipeline: Path, finished: Path, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(finished, tmp_path / "out"))
    scene = Path(shutil.copytree(room, tmp_path / "scene"))
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    cv2.imwrite(str(scene / "images" / "frame-06.jpg"), noise)
    figures = run(pipeline, output, dataset__root=str(scene)).summary.figures
    for row in ROWS:
        assert sorted(read_poses(output / "rows" / row["label"] / "poses.txt")) == ["frame-13.jpg"]
        assert figures[row["label"]]["failed"][0].startswith("frame-06.jpg (")
    metrics = json.loads((output / "metrics.json").read_text())["rows"]
    assert metrics["sparse"]["all"]["localized"] == 1


def test_localize_takes_an_rgbd_map(room: Path, tmp_path: Path) -> None:
    path = tmp_path / "localize.yaml"
    content: dict[str, Any] = {
        "name": "localize",
        "dataset": {"format": "rgbd", "root": str(room), "queries": 7},
        "extract": {"local": SIFT},
        "pair": {"method": "none"},
        "match": {},
        "localize": {"max_error_px": 4.0, "verify_pairs": True},
        "evaluate": {"thresholds": [[0.05, 1.0]]},
    }
    path.write_text(yaml.safe_dump(content))
    done = run(path, tmp_path / "out")
    assert done.summary.figures["localize"]["localized"] == 2
    assert done.metrics["queries"]["all"]["within_percent"]["0.05 m, 1 deg"] == 100.0
    path.write_text(yaml.safe_dump(content | {"verify": {}}))
    with pytest.raises(ConfigError, match="the map is given"):
        run(path, tmp_path / "out")


def test_a_row_needs_a_map_with_depth_and_a_label_of_its_own(
    pipeline: Path, tmp_path: Path
) -> None:
    content = yaml.safe_load(pipeline.read_text())
    path = tmp_path / "rows.yaml"
    path.write_text(yaml.safe_dump(content | {"rows": [ROWS[0], ROWS[0]]}))
    with pytest.raises(ConfigError, match="label 'direct' is taken"):
        run(path, tmp_path / "out")
    path.write_text(yaml.safe_dump(content | {"dataset": {"format": "folder", "images": "x"}}))
    with pytest.raises(ConfigError, match=r"dataset\.format"):
        run(path, tmp_path / "out")


@pytest.mark.slow
def test_dense_pv_tells_rooms_that_look_alike(tmp_path: Path) -> None:
    ways = SPARSE | {"images": 10}
    root = write_building(tmp_path / "building", size=(320, 240), queries=12, pans=8)
    content = {
        "name": "rooms",
        "dataset": {"format": "inloc", "root": str(root)},
        "retrieval": {"local": SIFT, "global": {"name": "gem", "max_edge": 96}, "neighbors": 48},
        "rows": [
            {"label": "sparse", "poses": [ways]},
            {"label": "sparse PV", "poses": [ways], "verification": {"max_edge": 320}},
        ],
    }
    path = tmp_path / "rooms.yaml"
    path.write_text(yaml.safe_dump(content))
    metrics = run(path, tmp_path / "out").metrics["rows"]
    without, with_pv = (
        metrics[name]["all"]["within_percent"]["1 m, 10 deg"] for name in ("sparse", "sparse PV")
    )
    assert without < with_pv >= 90


@pytest.mark.real
@pytest.mark.slow
def test_red_kitchen(shared_data: Path, pipeline: Path, tmp_path: Path) -> None:
    """40 frames of 7-Scenes with depth, 10 queries between them."""
    content = yaml.safe_load(pipeline.read_text())
    scene = str(shared_data / "7scenes-redkitchen")
    content |= {
        "dataset": {"format": "rgbd", "root": scene, "queries": 5},
        "rows": [{"label": "pooled", "poses": [SPARSE | {"pooled": True}]}],
        "evaluate": {"thresholds": [[0.05, 5.0]]},
    }
    path = tmp_path / "kitchen.yaml"
    path.write_text(yaml.safe_dump(content))
    found = run(path, tmp_path / "out").metrics["rows"]["pooled"]["all"]
    assert found["queries"] == 10
    assert found["within_percent"]["0.05 m, 5 deg"] == 100.0
    assert found["position_median"] < 0.01
