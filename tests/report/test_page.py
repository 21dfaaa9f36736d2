"""report.html of real runs: what it holds, what it weighs, and that names stay text."""

from __future__ import annotations

import base64
import errno
import html
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reconstruct import colmap
from reconstruct.__main__ import main
from reconstruct.datasets import Dataset
from reconstruct.datasets.synthetic import SyntheticDataset
from reconstruct.errors import ArtifactError
from reconstruct.pipeline import record
from reconstruct.pipeline.config import load_config
from reconstruct.report.collect import PAIR_BYTES, PHOTO_BYTES, POINTS
from reconstruct.report.content import PhotoRow, ReportContent
from reconstruct.report.output import OutputFolder
from reconstruct.report.page import write_report
from reconstruct.report.photos import with_thumbnails
from reconstruct.report.pictures import patch, thumbnail
from reconstruct.report.render import head, numbers, render, scene_json
from reconstruct.report.scene import model_view
from reconstruct.report.settings import report_settings
from reconstruct.report.verdict import Verdict
from reconstruct.stages import Summary
from reconstruct.workspace import Workspace

HOSTILE = "<img src=x onerror=alert(1)>.jpg"
PARTS = ("model", "matches", "photos", "graph", "distributions", "stages", "settings")


@pytest.fixture
def page(finished: Path, square: SyntheticDataset, tmp_path: Path) -> str:
    """The report on the small square."""
    output = tmp_path / "out"
    shutil.copytree(finished, output)
    dataset = Dataset(root=square.images, names=tuple(square.names))
    summary = Summary(
        figures={"match": {"pairs": 15}},
        seconds={"match": 75.2},
        memory_mb={"match": 1234},
        skipped={HOSTILE: "</script> unreadable"},
    )
    write_report(Workspace(output), summary, {"name": "square"}, dataset)
    return (output / "report.html").read_text(encoding="utf-8")


def test_all_parts_are_there_in_one_small_file(page: str, square: SyntheticDataset) -> None:
    for part in PARTS:
        assert f'<section id="{part}">' in page
    for name in square.names:
        assert f'<td class="file">{name}</td>' in page
    assert len(page.encode()) < 1_000_000
    assert "default-src 'none'" in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page), "no address of a server"


def test_stages_tell_time_and_memory(page: str) -> None:
    assert "1 min 15 s" in page
    assert "1,234 MB" in page


def test_columns_of_numbers_stand_flush_right_under_heads_with_units() -> None:
    rows = [
        ["1", "1,204", "-", "5 of 9", "9.5 mm", "59 s", "1"],
        ["2", "3.1", "97.5 %", "failed", "0.2°", "1 min 2 s", "x"],
    ]
    assert numbers(rows) == [False, True, True, True, True, True, False]
    heads = {"5": "5\u00a0px", "median deg": "median [°]", "median m": "median [m]"}
    heads |= {"error px": "error [px]"}
    heads |= {"0.25 m, 10 deg": "0.25\u00a0m, 10°", "matches": "matches"}
    assert [head(cell) for cell in heads] == list(heads.values())


def test_names_stay_text(page: str) -> None:
    assert html.escape(HOSTILE) in page
    assert "<img src=x" not in page
    assert page.count("</script>") == page.count("<script")


def test_the_scene_cannot_end_its_element(page: str) -> None:
    found = re.search(r'id="scene">(.*?)</script>', page)
    assert found
    (model,) = json.loads(found[1])["models"]
    assert len(model["cameras"]) == 6
    assert model["shown"] == model["total"] > 100
    assert "<" not in scene_json((), ())


def test_a_report_without_anything() -> None:
    content = ReportContent(title="t", verdict=Verdict(level="good", headline="h"))
    assert render(content) == render(content)
    assert "<canvas" not in render(content)


def test_photos_that_are_gone_leave_figures(finished: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(finished, output)
    config = {"name": "gone", "dataset": {"images": str(tmp_path / "nowhere")}}
    write_report(Workspace(output), Summary(), config)
    page = (output / "report.html").read_text(encoding="utf-8")
    assert '<section id="distributions">' in page
    assert "data:image/jpeg" not in page


def test_a_run_writes_it_with_hostile_names(
    square: SyntheticDataset, chain: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, name in enumerate(square.names[:4]):
        shutil.copy(square.images / name, photos / (HOSTILE if i == 0 else name))
    assert (
        main(["run", str(chain), "--images", str(photos), "--output", str(tmp_path / "o"), "-q"])
        == 0
    )
    page = (tmp_path / "o" / "report.html").read_text(encoding="utf-8")
    assert html.escape(HOSTILE) in page
    assert "<img src=x" not in page


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "report.html"), "[Errno 28]"),
        (ArtifactError("'x' is not the key of a pair"), "'x' is not the key"),
        (KeyError("x"), "KeyError('x')"),
    ],
)
def test_a_page_that_cannot_be_written_is_told_in_a_line(
    square: SyntheticDataset,
    chain: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    told: str,
) -> None:
    def fails(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(record, "write_report", fails)
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in square.names[:4]:
        shutil.copy(square.images / name, photos)
    assert main(["run", str(chain), "--images", str(photos), "--output", str(tmp_path / "o")]) == 0
    shown = "".join(capsys.readouterr())
    assert f"report.html could not be written; all else is there ({told}" in shown
    assert "Traceback" not in shown
    assert "Traceback" in (tmp_path / "o" / "log.txt").read_text(encoding="utf-8")


def test_what_differs_from_the_defaults_is_on_top(chain: Path) -> None:
    config = load_config(chain, {"match.ratio": 0.8})
    changed = {key: (value, default) for key, value, default in report_settings(config).changed}
    assert changed["match.ratio"] == ("0.8", "null")
    assert "verify.min_inliers" not in changed
    assert "min_inliers" in report_settings(config).all
    kinds = [default == "" for _, _, default in report_settings(config).changed]
    assert kinds == sorted(kinds), "what has a default comes first"


def test_of_methods_what_was_set_is_told() -> None:
    methods = [{"label": "a", "local": {"name": "sift", "upright": True}}]
    config = load_config("wxbs", {"methods": methods})
    changed = {key: value for key, value, _ in report_settings(config).changed}
    assert changed["methods 1"] == "{label: a, local: {name: sift, upright: true}}"


def test_of_folders_the_path_is_told(chain: Path, tmp_path: Path) -> None:
    local = {"name": "d2net", "cache_dir": str(tmp_path)}
    changed = report_settings(load_config(chain, {"extract.local": local})).changed
    assert ("extract.local.cache_dir", str(tmp_path), "null") in changed


def test_thumbnails_keep_to_their_budget(square: SyntheticDataset, tmp_path: Path) -> None:
    photo = square.images / square.names[0]
    for budget in (2_000, 8_000):
        data = thumbnail(photo, budget)
        assert data is not None
        assert len(data) < budget * 4 / 3 + 40
    assert thumbnail(photo, 100) is None
    assert thumbnail(tmp_path / "absent.jpg", 8_000) is None
    Image.new("I;16", (64, 48)).save(tmp_path / "deep.png")
    assert thumbnail(tmp_path / "deep.png", 8_000) is not None


def test_a_patch_has_its_position_in_the_middle() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[20, 30] = 255  # its centre is (30.5, 20.5) in COLMAP pixels
    data = patch(image, np.array([30.5, 20.5]), radius=8, zoom=6)
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data.split(",")[1]))).convert("L"))
    rows, columns = np.nonzero(shown > 128)
    middle = (len(shown) - 1) / 2
    assert (rows.mean(), columns.mean()) == (pytest.approx(middle, abs=0.2),) * 2


def test_a_hundred_photos_and_more_points_than_are_shown_stay_below_three_megabytes(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    names = tuple(f"{i:03}.jpg" for i in range(100))
    for name in names:  # noise: no photo is harder to compress
        pixels = rng.integers(0, 255, (120, 160, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / name, quality=95)
    camera = colmap.make_camera("SIMPLE_PINHOLE", (300.0, 160.0, 120.0), (320, 240))
    none = np.zeros(0, np.int64)
    model = colmap.ModelArrays(
        names=names,
        cameras=(camera,) * 100,
        poses=np.repeat(np.eye(3, 4)[None], 100, axis=0),
        xyz=rng.uniform(size=(70_000, 3)),
        colors=rng.integers(0, 255, (70_000, 3), np.uint8),
        image=none,
        keypoint=none,
        point=none,
        xy=np.zeros((0, 2)),
    )
    output = OutputFolder(Workspace(tmp_path / "out"), Dataset(root=tmp_path, names=names))
    rows = [PhotoRow(name=name, thumbnail=None, state="mapped") for name in names]
    view = model_view("Model", model, {}, POINTS)
    content = ReportContent(
        title="large",
        verdict=Verdict(level="good", headline="h"),
        models=(view,),
        photos=with_thumbnails(rows, output, PHOTO_BYTES),
    )
    page = render(content)
    assert 50_000 <= view.shown < view.total
    assert page.count("data:image/jpeg") == 100
    assert len(page.encode()) + 4 * PAIR_BYTES // 3 < 2_800_000, "the rest is for charts"
