"""Curves as SVG."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import pytest

from reconstruct.evaluation.plots import Frame, draw_curves, ticks

PANELS = {
    "overall": {f"method {i}": {"1": i / 12, "2": 1.0} for i in range(12)},
    "viewpoint <script>": {f"method {i}": {"1": 0.0, "2": i / 12} for i in range(12)},
}


def test_panels_and_labels_are_there_and_equal_input_gives_equal_text() -> None:
    drawn = draw_curves(PANELS, xlabel="threshold [px]", ylabel="accuracy")
    texts = [node.text for node in ElementTree.fromstring(drawn).iter() if node.text]
    for text in ("overall", "viewpoint <script>", "method 11", "threshold [px]", "accuracy"):
        assert text in texts
    assert drawn == draw_curves(PANELS, xlabel="threshold [px]", ylabel="accuracy")


@pytest.mark.parametrize("panels", [{}, {"overall": {}}, {"overall": {"a": {"1": math.nan}}}])
def test_nothing_to_draw(panels: dict[str, dict[str, dict[str, float]]]) -> None:
    drawn = ElementTree.fromstring(draw_curves(panels, xlabel="x", ylabel="y", y=None))
    assert drawn.tag.endswith("svg")
    assert not list(drawn.iter("{*}polyline"))


def test_data_lies_where_the_axes_say() -> None:
    frame = Frame(x=(0, 10), y=(0, 1), left=50, top=20, width=100, height=200)
    assert frame.at(0, 0) == (50, 220)
    assert frame.at(10, 1) == (150, 20)
    assert frame.at(5, 0.5) == (100, 120)


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert ticks(3, 18) == pytest.approx([5, 10, 15])
    assert ticks(2, 2) == [2]
