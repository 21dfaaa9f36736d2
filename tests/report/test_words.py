"""What a run says in words: figures with units, the verdict, the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconstruct.report.figures import count, duration, figure, figure_texts, length, plain
from reconstruct.report.terminal import print_summary
from reconstruct.report.verdict import verdict
from reconstruct.stages import Summary

MAPPED = {
    "models": 1,
    "registered_images": 12,
    "of_images": 12,
    "points": 1829,
    "mean_reprojection_error_px": 0.347,
}


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("mean_reprojection_error_px", 0.34567, ("mean reprojection error", "0.346 px")),
        ("rotation_mean_deg", 0.0394, ("mean rotation error", "0.0394°")),
        ("position_mean", 0.00068953, ("mean position error", "0.69 mm")),
        ("inliers_kept_percent", 98.0, ("inliers kept", "98 %")),
        ("points", 18293, ("points", "18,293")),
        ("auc_1deg_percent", 98.25, ("AUC 1°", "98.2 %")),
        ("gps_rms_horizontal_m", 0.371, ("GPS RMS horizontal", "0.371 m")),
        ("not_registered", [], ("not registered", "none")),
        ("median_residual_px", None, ("median residual px", "-")),
    ],
)
def test_figures_have_names_and_units(name: str, value: Any, told: tuple[str, str]) -> None:
    assert figure(name, value) == told


def test_lengths_durations_and_counts() -> None:
    assert [length(v) for v in (0.0007, 0.0321, 0.25, 1.4, 12345.0, float("inf"))] == [
        *("0.7 mm", "32.1 mm", "25 cm", "1.4 m", "12,345 m", "-")
    ]
    assert [duration(v) for v in (0.0, 0.42, 59.7, 200, 7500)] == [
        *("< 0.1 s", "0.4 s", "1 min 0 s", "3 min 20 s", "2 h 5 min")
    ]
    assert [count(1, "photo"), count(2, "query"), count(1204, "match")] == [
        *("1 photo", "2 queries", "1,204 matches")
    ]
    assert plain([str(i) for i in range(23)]).endswith("19 and 3 more")


def test_a_whole_model() -> None:
    figures = {"map": MAPPED, "evaluate": {"position_mean": 0.000691}}
    found = verdict(Summary(figures=figures))
    assert found.headline == "12 of 12 photos in one model, 0.35 px, 0.69 mm from the reference"
    assert (found.level, found.notes) == ("good", ())


def test_what_stayed_out_is_named_with_what_to_try() -> None:
    parted = MAPPED | {"models": 3, "registered_images": 9, "not_registered": ["a.jpg", "b.jpg"]}
    found = verdict(Summary(figures={"map": parted}, skipped={"c.jpg": "not a readable image"}))
    assert found.headline == "9 of 12 photos in the largest of 3 models, 0.35 px"
    assert found.level == "partial"
    notes = " ".join(found.notes)
    for word in ("a.jpg, b.jpg", "pair.method: exhaustive", "3 models", "c.jpg"):
        assert word in notes


def test_queries() -> None:
    table = [
        ["queries", "localized", "0.25 m, 2 deg", "median m", "median deg"],
        ["all", "3 of 4", "50.0 %", "0.031", "0.2"],
    ]
    figures = {"localize": {"queries": 4, "localized": 3, "failed": ["q.jpg (ransac_failed, 9)"]}}
    found = verdict(Summary(figures=figures, tables={"localization": table}))
    headline = "3 of 4 queries localized, 50.0 % within 0.25 m, 2°, median 31 mm and 0.2°"
    assert (found.headline, found.level) == (headline, "partial")
    far = [table[0], ["all", "3 of 4", "0.0 %", "9.3", "90"]]
    found = verdict(Summary(figures=figures, tables={"localization": far}))
    assert found.level == "bad"
    assert "in one frame" in found.notes[0]
    figures["localize"] |= {"localized": 0}
    assert verdict(Summary(figures=figures)).level == "bad"


def test_a_benchmark_names_the_best_and_training_its_best_step() -> None:
    head = ["method", "features", "matches", "1", "3", "10", "AUC@5"]
    rows = [
        ["sift", "90", "50", "40.1", "60.0", "70.0", "1"],
        ["d2", "9", "5", "9", "72.5", "9", "2"],
    ]
    reported = ["x (reported)", "9", "9", "-", "-", "-", "-"]
    found = verdict(Summary(tables={"hpatches, overall: share, %": [head, *rows, reported]}))
    assert found.headline == "d2 leads 2 methods: 72.5 % within 3 px (hpatches, overall)"
    trained = {"steps": 40, "best validation loss": 0.5, "at step": 30, "weights": "w.st"}
    found = verdict(Summary(figures={"train": trained}))
    assert found.headline == "40 steps trained, best validation loss 0.5 at step 30"
    assert "w.st" in found.notes[0]
    assert verdict(Summary(figures={"train": trained | {"at step": 0}})).level == "partial"


def test_the_terminal_begins_with_the_verdict_and_ends_with_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.html").write_text("")
    skipped = {"x[red].jpg": "not a readable [bold] image"}
    print_summary(tmp_path, Summary(figures={"map": MAPPED}, skipped=skipped))
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] == "12 of 12 photos in one model, 0.35 px"
    assert lines[-1] == str(tmp_path / "report.html")
    assert any("mean reprojection error 0.347 px" in line for line in lines)
    assert any("x[red].jpg" in line and "[bold]" in line for line in lines)


def test_nothing_at_all() -> None:
    assert verdict(Summary()).headline == "Nothing was to do"


def test_a_part_is_told_with_its_whole() -> None:
    texts = figure_texts({"models": 1, "registered_images": 9, "points": 20, "of_images": 12})
    assert list(texts.values()) == [
        *(("models", "1"), ("registered images", "9 of 12"), ("points", "20"))
    ]
    assert figure_texts({"registered_images": 9})["registered_images"][1] == "9"
