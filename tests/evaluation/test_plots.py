"""Curves as SVG."""

from __future__ import annotations

import importlib.util

import pytest

from reconstruct.evaluation.plots import draw_curves

PANELS = {
    "overall": {f"method {i}": {"1": i / 12, "2": 1.0} for i in range(12)},
    "viewpoint": {f"method {i}": {"1": 0.0, "2": i / 12} for i in range(12)},
}


def test_panels_and_labels_are_there_and_equal_input_gives_equal_text() -> None:
    pytest.importorskip("matplotlib")
    drawn = draw_curves(PANELS, xlabel="threshold [px]", ylabel="accuracy")
    assert drawn is not None
    assert drawn.startswith("<svg")
    for text in ("overall", "viewpoint", "method 11", "threshold [px]", "accuracy"):
        assert text in drawn
    assert drawn == draw_curves(PANELS, xlabel="threshold [px]", ylabel="accuracy")


def test_no_method_at_all() -> None:
    pytest.importorskip("matplotlib")
    assert draw_curves({"overall": {}}, xlabel="x", ylabel="y") is not None


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert draw_curves(PANELS, xlabel="x", ylabel="y") is None
