"""Two methods over the small square, from the command line to the page."""

from __future__ import annotations

import errno
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import reconstruct
from reconstruct.comparison.agreement import Agreement
from reconstruct.comparison.outcome import Comparison, MethodOutcome
from reconstruct.comparison.tables import (
    agreement_table,
    comparison_verdict,
    method_table,
    photo_table,
)
from reconstruct.datasets.synthetic import SyntheticDataset
from reconstruct.errors import DataError, UsageError

UPRIGHT = "up=name=sift,upright=true,max_keypoints=1500"
NO_FILES = "files=name=precomputed,method=nothing"


@pytest.fixture(scope="module")
def compared(
    chain: Path, square: SyntheticDataset, tmp_path_factory: pytest.TempPathFactory
) -> Comparison:
    """Two kinds of SIFT, and a method whose files are missing. Not to be changed."""
    output = tmp_path_factory.mktemp("compared") / "out"
    cameras = {"dataset.cameras": str(square.reference)}
    return reconstruct.compare(
        chain,
        ["sift", UPRIGHT, NO_FILES],
        square.images,
        output,
        square.reference,
        cameras,
        verbosity=-1,
    )


def test_figures_of_each_method(compared: Comparison) -> None:
    sift, upright, files = compared.methods
    for method in (sift, upright):
        assert method.error is None
        assert method.map["registered_images"] == 6
        assert method.metrics is not None
        assert method.metrics.auc_percent["5"] > 90
        assert {"extract", "match", "map"} <= set(method.seconds)
    assert sift.map["observations"] != upright.map["observations"]
    assert files.error is not None
    assert "none of the 6 images can be read" in files.error


def test_results_of_somebody_else_are_not_replaced(
    chain: Path, square: SyntheticDataset, tmp_path: Path
) -> None:
    theirs = tmp_path / "compare.json"
    theirs.write_text("theirs")
    with pytest.raises(UsageError, match=r"did not write \(compare.json\)"):
        reconstruct.compare(chain, ["sift", UPRIGHT], square.images, tmp_path)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("compare.json", "theirs")]


def test_a_page_that_the_disk_has_no_room_for_is_told_in_a_line(
    compared: Comparison,
    chain: Path,
    square: SyntheticDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree(compared.output, output := tmp_path / "out")
    page = (output / "compare.html").read_bytes()
    (output / "compare.json").unlink()
    write = Path.write_text

    def full(path: Path, text: str, *more: Any, **known: Any) -> int:
        if path.name.startswith("compare.html"):
            write(path, text[:100], *more, **known)
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, text, *more, **known)

    monkeypatch.setattr(Path, "write_text", full)
    cameras = {"dataset.cameras": str(square.reference)}
    methods = ["sift", UPRIGHT]
    found = reconstruct.compare(chain, methods, square.images, output, overrides=cameras)
    assert [method.error for method in found.methods] == [None, None]
    assert (output / "compare.json").is_file()
    (told,) = [r for r in caplog.records if "compare.html could not be written" in r.message]
    assert told.exc_info is None, "a line, no traceback"
    assert "No space left" in told.message
    assert str(output / "compare.html") in told.message
    assert (output / "compare.html").read_bytes() == page, "the old one stays"
    assert not list(output.glob("*-tmp*"))


def test_both_maps_are_the_square(compared: Comparison) -> None:
    assert list(compared.agreements) == [("sift", "up")]
    found = compared.agreements["sift", "up"]
    assert found is not None
    assert (found.common, found.apart) == (6, ())
    assert found.rotation_max_deg < 1.0  # the cameras are nearly in one plane, on a short arc
    assert found.position_max_percent < 1.0


def test_what_is_written(compared: Comparison) -> None:
    written = json.loads((compared.output / "compare.json").read_text(encoding="utf-8"))
    assert set(written["methods"]) == {"sift", "up", "files"}
    assert written["methods"]["up"]["settings"]["extract.local.upright"] is True
    assert written["methods"]["files"]["poses"] is None
    assert written["agreement"][0]["methods"] == ["sift", "up"]
    page = (compared.output / "compare.html").read_text(encoding="utf-8")
    scene = re.search(r'id="scene">(.*?)</script>', page)
    assert scene
    assert [model["name"] for model in json.loads(scene[1])["models"]] == ["sift", "up"]
    assert page.count("<figcaption><b>sift</b>") == page.count("<figcaption><b>up</b>") == 3
    assert len(re.findall(r'class="pair first">.*?<b>sift</b>.*?<b>up</b>', page, re.DOTALL)) == 3
    assert "files made no map" in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page), "no address of a server"


def test_models_of_the_page_lie_in_one_frame(compared: Comparison) -> None:
    page = (compared.output / "compare.html").read_text(encoding="utf-8")
    scene = re.search(r'id="scene">(.*?)</script>', page)
    assert scene
    first, second = json.loads(scene[1])["models"]
    for a, b in zip(first["cameras"], second["cameras"], strict=True):
        assert a["name"] == b["name"]
        size = max(abs(value) for value in a["matrix"])
        assert a["matrix"] == pytest.approx(b["matrix"], abs=0.03 * size)


def test_the_command_goes_on_where_it_was(
    command: Any, chain: Path, square: SyntheticDataset, compared: Comparison, tmp_path: Path
) -> None:
    output = Path(shutil.copytree(compared.output, tmp_path / "out"))
    cameras = f"dataset.cameras={json.dumps(str(square.reference))}"
    arguments = ["--images", square.images, "--output", output, "--set", cameras]
    arguments += ["--methods", "sift", UPRIGHT, "--reference", square.reference]
    told = command("compare", chain, *arguments)
    assert told.status == 0
    assert "extract: done in" in told.err
    assert "6/6 images" not in told.err
    sift, *_ = compared.methods
    row = next(line for line in told.out.splitlines() if line.split()[:1] == ["sift"])
    assert f"{sift.map['points']:,}" in row.split()
    assert str(output / "compare.html") in told.out.replace("\n", "")


def test_nothing_runs_with_a_wrong_setting(chain: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"method b: .*extract\.local\.upwards: unknown key"):
        reconstruct.compare(chain, {"a": {}, "b": {"upwards": 1}}, photos, tmp_path / "out")
    with pytest.raises(UsageError, match="needs a pipeline file with a section `map`"):
        reconstruct.compare("hpatches", "sift", photos, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_map_at_all_is_an_error(chain: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no method made a map:\nfiles: "):
        reconstruct.compare(chain, [NO_FILES], photos, tmp_path / "out", verbosity=-1)


def outcome(label: str, registered: int) -> MethodOutcome:
    figures = {"map": {"registered_images": registered, "of_images": 9, "points": 1234}}
    return MethodOutcome(label=label, output=Path(label), figures=figures)


def test_who_maps_most_is_said_first() -> None:
    failed = MethodOutcome(label="c", output=Path("c"), error="no pair")
    methods = (outcome("a", 7), outcome("b", 9), failed)
    comparison = Comparison(
        output=Path(), methods=methods, settings={}, agreements={("a", "b"): None}
    )
    told = comparison_verdict(comparison)
    assert told.headline == "b maps most photos: 9 of 9"
    assert told.notes == ("c made no map: no pair",)
    assert method_table(comparison) == [
        ["method", "registered", "points"],
        ["a", "7 of 9", "1,234"],
        ["b", "9 of 9", "1,234"],
        ["c", "failed", "-"],
    ]


def test_a_sentence_about_many_methods_says_how_many_it_leaves_out() -> None:
    methods = tuple(
        replace(outcome(label, 9), metrics=SimpleNamespace(auc_percent={"1": 90.0 - i}))
        for i, label in enumerate("abcdefg")
    )
    apart = Agreement(
        common=9,
        rotation_median_deg=0.01234,
        rotation_max_deg=0.02,
        position_median_percent=0.00567,
        position_max_percent=0.01,
        apart=tuple("123456"),
    )
    comparison = Comparison(
        output=Path(), methods=methods, settings={}, agreements={("a", "b"): apart}
    )
    told = comparison_verdict(comparison)
    assert told.headline.endswith("a 90.0 %, b 89.0 %, c 88.0 %, d 87.0 %, e 86.0 % and 2 more")
    assert told.notes == ("a and b put these in different places: 1, 2, 3, 4, 5 and 1 more.",)
    # Good maps agree to some thousandths of a percent.
    assert agreement_table(comparison)[1][2:6] == ["0.012", "0.020", "0.006", "0.010"]


def test_photos_in_dispute_come_first() -> None:
    counts = {"a": {"1.jpg": 50, "2.jpg": 60}, "b": {"1.jpg": 40, "2.jpg": 7, "3.jpg": 2000}}
    assert photo_table(counts, limit=2) == [
        ["photo", "a", "b"],
        ["3.jpg", "not mapped", "2,000"],
        ["1.jpg", "50", "40"],
    ]
