"""Stage pair: what it says before the work begins."""

from __future__ import annotations

from pathlib import Path

import pytest

import reconstruct
from reconstruct.stages import Plan, pair
from reconstruct.stages.match import Match
from reconstruct.stages.verify import Verify


@pytest.mark.parametrize(("many", "said"), [(6, True), (7, False)])
def test_a_run_whose_pairs_take_days_says_so_first(
    chain: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    many: int,
    said: bool,
) -> None:
    monkeypatch.setattr(pair, "MANY_PAIRS", many)
    reconstruct.run(chain, photos, tmp_path / "out", only=["extract"])
    first = next(record.message for record in caplog.records if record.levelname != "DEBUG")
    assert ("4 photos makes 6 pairs" in first) is said


def test_a_plan_says_so_too_and_looks_at_no_pair(
    chain: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked_at() -> None:
        raise AssertionError

    monkeypatch.setattr(pair, "MANY_PAIRS", 6)
    for stage in (Match, Verify):
        monkeypatch.setattr(stage, "find_fingerprints", lambda self: looked_at())
    plans = dict(reconstruct.plan(chain, photos, tmp_path / "out"))
    assert "4 photos makes 6 pairs" in plans["pair"].why
    assert (plans["match"].todo, plans["verify"].todo) == (6, 6)
    assert plans["map"] == Plan("missing", "no sparse yet")
