"""A benchmark from pipeline file to metrics.json, on planes made here; resumed, and killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from planes import TILT, write_sequence

import reconstruct
from reconstruct.benchmark.comparison import BenchmarkConfig
from reconstruct.errors import ConfigError, DataError
from reconstruct.images import decode_image
from reconstruct.pipeline.config import load_config

SIFT = {"label": "sift", "local": {"name": "sift"}}
EXACT = {"label": "exact", "local": {"name": "precomputed", "method": "exact"}}


@pytest.fixture(scope="module")
def planes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("planes")
    write_sequence(root / "v_tilt", TILT)
    write_sequence(root / "i_still", np.eye(3), seed=1)
    exact_features(root, "exact")
    return root


def pipeline(folder: Path, methods: list[dict[str, Any]], **settings: Any) -> Path:
    content = {
        "name": "planes",
        "dataset": {"format": "hpatches", "images": "given"},
        "methods": methods,
        **settings,
    }
    path = folder / "benchmark.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def exact_features(root: Path, method: str) -> None:
    """Precomputed features on exact positions: a grid in image 1, warped into the others."""
    grid = np.stack(np.meshgrid(np.arange(60.0, 140, 20), np.arange(60.0, 110, 20)), -1)
    points = grid.reshape(-1, 2)
    for image in sorted(root.glob("*/*.png")):
        k = int(image.stem)
        h = np.eye(3) if k == 1 else np.loadtxt(image.parent / f"H_1_{k}")
        mapped = np.column_stack([points, np.ones(len(points))]) @ h.T
        with open(f"{image}.{method}", "wb") as file:
            positions = mapped[:, :2] / mapped[:, 2:]
            np.savez(file, keypoints=positions, descriptors=np.eye(len(points)))


def test_table_metrics_and_report(planes: Path, tmp_path: Path) -> None:
    run = reconstruct.run(pipeline(tmp_path, [SIFT, EXACT]), images=planes, output=tmp_path / "out")
    found = run.metrics["hpatches"]
    assert found["data"]["sequences"] == 2
    assert not found["data"]["complete"]
    exact = found["methods"]["exact"]
    assert exact["features"] == 12
    for group, pairs in {"overall": 10, "illumination": 5, "viewpoint": 5}.items():
        result = exact["groups"][group]
        assert (result["pairs"], result["matches"]) == (pairs, 12.0)
        assert set(result["shares"].values()) == {1.0}
        assert min(result["auc"].values()) > 0.999
    sift = found["methods"]["sift"]["groups"]["overall"]
    assert sift["shares"]["3"] > 0.9
    assert list(sift["shares"].values()) == sorted(sift["shares"].values())
    assert found["reported"]["D2 MS trained"]["features"] == 8255
    assert json.loads((tmp_path / "out" / "truth.json").read_text())["correlation_of_warps"]
    report = (tmp_path / "out" / "report.html").read_text()
    assert "D2 MS trained (reported)" in report
    assert next(iter(run.summary.tables.values()))[2][0] == "exact"
    assert (tmp_path / "out" / "curves.svg").exists()
    assert "<svg" in report


def test_refinement_moves_positions_to_where_they_belong(planes: Path, tmp_path: Path) -> None:
    for image in sorted(planes.glob("*/*.png.exact")):
        with np.load(image) as archive:
            arrays = dict(archive)
        off = [0.0, 0.0] if image.name.startswith("1.") else [1.5, -1.0]
        with open(image.with_suffix(".off"), "wb") as file:
            np.savez(file, keypoints=arrays["keypoints"] + off, descriptors=arrays["descriptors"])
    local = {"name": "precomputed", "method": "off"}
    methods = [{"label": "off", "local": local}, {"label": "on", "local": local, "refine": {}}]
    file, out = pipeline(tmp_path, methods), tmp_path / "out"
    found = reconstruct.run(file, images=planes, output=out).metrics["hpatches"]["methods"]
    share = {name: row["groups"]["overall"]["shares"]["1"] for name, row in found.items()}
    assert share["off"] == 0.0
    assert share["on"] > 0.8
    assert {plan.state for _, plan in reconstruct.plan(file, planes, out)} == {"done"}
    methods[1]["refine"] = {"iterations": 5}
    plans = dict(reconstruct.plan(pipeline(tmp_path, methods), planes, out))
    assert (plans["off"].state, plans["on"].todo) == ("done", 10)


def test_nothing_is_done_twice(planes: Path, tmp_path: Path) -> None:
    again = {"label": "sift ratio", "local": {"name": "sift"}, "match": {"ratio": 0.8}}
    file, out = pipeline(tmp_path, [SIFT, again]), tmp_path / "out"
    first = reconstruct.run(file, images=planes, output=out, only=["truth", "sift"])
    assert not (out / "metrics.json").exists()
    (shards,) = (out / "extractors").iterdir()
    before = {path: path.stat().st_mtime_ns for path in shards.rglob("*.h5")}
    states = {name: plan.state for name, plan in reconstruct.plan(file, planes, out)}
    assert states == {
        "truth": "done",
        "sift": "done",
        "sift ratio": "missing",
        "compare": "missing",
    }
    second = reconstruct.run(file, images=planes, output=out)
    assert {path: path.stat().st_mtime_ns for path in shards.rglob("*.h5")} == before
    assert first.summary.figures["sift"] == second.summary.figures["sift"]
    matches = [
        second.metrics["hpatches"]["methods"][name]["groups"]["overall"]["matches"]
        for name in ("sift", "sift ratio")
    ]
    assert matches[0] > matches[1]
    assert {plan.state for _, plan in reconstruct.plan(file, planes, out)} == {"done"}


def test_a_killed_run_goes_on_to_the_same_result(
    planes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = pipeline(tmp_path, [EXACT])
    reads = 0

    def decode(data: bytes, name: str, **settings: Any) -> Any:
        nonlocal reads
        reads += 1
        if reads == 9:
            raise KeyboardInterrupt
        return decode_image(data, name, **settings)

    with monkeypatch.context() as patched:
        patched.setattr("reconstruct.stages.extract_worker.decode_image", decode)
        with pytest.raises(KeyboardInterrupt):
            reconstruct.run(file, images=planes, output=tmp_path / "killed")
    killed = reconstruct.run(file, images=planes, output=tmp_path / "killed")
    whole = reconstruct.run(file, images=planes, output=tmp_path / "whole")
    assert killed.metrics == whole.metrics


@pytest.mark.parametrize("file", ["methods/exact/scores.json", "metrics.json", "truth.json"])
@pytest.mark.parametrize("content", [None, "", "[{"])
def test_lost_and_unreadable_files_are_made_again(
    planes: Path, tmp_path: Path, file: str, content: str | None
) -> None:
    pipe, out = pipeline(tmp_path, [EXACT]), tmp_path / "out"
    before = reconstruct.run(pipe, images=planes, output=out).metrics
    (out / file).unlink()
    if content is not None:
        (out / file).write_text(content)
    assert reconstruct.run(pipe, images=planes, output=out).metrics == before


def test_other_settings_make_it_stale(planes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    reconstruct.run(pipeline(tmp_path, [EXACT]), images=planes, output=out)
    for settings in ({"ransac": {"max_error_px": 2.0}}, {"seed": 1}):
        file = pipeline(tmp_path, [EXACT], **settings)
        states = {name: plan.state for name, plan in reconstruct.plan(file, planes, out)}
        assert states["exact"] != "done"


def test_images_without_features_are_told(planes: Path, tmp_path: Path) -> None:
    exact_features(planes, "partly")
    (planes / "v_tilt" / "3.png.partly").unlink()
    methods = [{"label": "partly", "local": {"name": "precomputed", "method": "partly"}}]
    file = pipeline(tmp_path, methods)
    run = reconstruct.run(file, images=planes, output=tmp_path / "out")
    assert "no precomputed features" in run.summary.skipped["v_tilt/3.png"]
    assert run.summary.figures["partly"]["pairs"] == 9
    assert next(iter(run.summary.tables.values()))[1][0] == "partly (9 pairs)"
    nothing = [{"label": "none", "local": {"name": "precomputed", "method": "none"}}]
    with pytest.raises(DataError, match="none of the 12 images"):
        reconstruct.run(pipeline(tmp_path, nothing), images=planes, output=tmp_path / "none")


def test_reversed_ground_truth_stops_the_run(tmp_path: Path) -> None:
    write_sequence(tmp_path / "v_tilt", TILT)
    for k in range(2, 7):
        path = tmp_path / "v_tilt" / f"H_1_{k}"
        np.savetxt(path, np.linalg.inv(np.loadtxt(path)))
    with pytest.raises(DataError, match="must map image 1 to image k"):
        reconstruct.run(pipeline(tmp_path, [SIFT]), images=tmp_path, output=tmp_path / "out")


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([SIFT, SIFT], "label 'sift' is taken"),
        ([{"label": "compare", "local": {"name": "sift"}}], "label 'compare' is taken"),
        ([{"label": "../sift", "local": {"name": "sift"}}], r"methods\.0\.label"),
        ([{"label": "a", "local": {"name": "shift"}}], r"methods\.0\.local\.name.*sift"),
        ([{"label": "a", "local": {"name": "sift", "max_edges": 5}}], "did you mean 'max_edge'"),
        ([], "methods"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, methods: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(pipeline(tmp_path, methods))


@pytest.mark.parametrize("name", ["hpatches", "wxbs"])
def test_the_shipped_files_are_valid(name: str) -> None:
    config = load_config(Path(__file__).parents[2] / "pipelines" / f"{name}.yaml")
    assert isinstance(config, BenchmarkConfig)
    assert config.dataset.format == name


@pytest.mark.real
def test_wxbs(shared_data: Path, tmp_path: Path) -> None:
    content = {
        "name": "wxbs",
        "dataset": {"format": "wxbs", "images": str(shared_data / "wxbs")},
        "methods": [{"label": "sift", "local": {"name": "sift", "max_edge": 400}}],
    }
    path = tmp_path / "wxbs.yaml"
    path.write_text(yaml.safe_dump(content))
    run = reconstruct.run(path, output=tmp_path / "out")
    groups = run.metrics["wxbs"]["methods"]["sift"]["groups"]
    assert groups["overall"]["pairs"] == sum(groups[k]["pairs"] for k in groups if k != "overall")
    # SIFT gets along with other light on a building, and with nothing else in here.
    easy = groups.pop("WLABS")["shares"]
    assert 0 < easy["5"] < easy["20"]
    assert all(group["shares"]["20"] < easy["20"] for group in groups.values())


def test_the_table_stands_without_a_method_whose_weights_are_missing(
    planes: Path, tmp_path: Path
) -> None:
    local = {"name": "superpoint", "weights": str(tmp_path / "none.pth")}
    lacking = {"label": "lacking", "local": local}
    file = pipeline(tmp_path, [lacking, EXACT])
    run = reconstruct.run(file, images=planes, output=tmp_path / "out")
    assert list(run.metrics["hpatches"]["methods"]) == ["exact"]
    assert "no such weights file" in run.summary.skipped["lacking"]
    (planned,) = (
        p for name, p in reconstruct.plan(file, planes, tmp_path / "out") if name == "lacking"
    )
    assert planned.why.startswith("left out: ")
    with pytest.raises(DataError, match="none of the methods can run here"):
        reconstruct.run(pipeline(tmp_path, [lacking]), images=planes, output=tmp_path / "other")
