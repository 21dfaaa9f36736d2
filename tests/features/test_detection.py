"""The gathered detection against the literal one on whole maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from literal_detection import literal_detections, literal_points

from reconstruct.features.detection import detect, localize, newton_step


def _random(shape: tuple[int, int, int], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _plateaus(shape: tuple[int, int, int]) -> torch.Tensor:
    return _random(shape, 5).repeat_interleave(2, 1).repeat_interleave(2, 2).contiguous()


MAPS = {
    "relu": _random((16, 23, 31), 0).relu(),
    "no relu": _random((16, 23, 31), 1),
    "all negative": _random((3, 12, 9), 2) - 9,
    "ties of channels and neighbours": (_random((6, 25, 25), 3) * 2).round().relu(),
    "ties below zero": (_random((6, 25, 25), 4) * 2).round() - 3,
    "plateaus": _plateaus((4, 9, 9)).relu(),
    "one channel": _random((1, 20, 20), 6),
    "one row": _random((5, 1, 17), 7),
    "one cell": torch.ones(4, 1, 1),
    "zero": torch.zeros(8, 6, 6),
    "constant": torch.full((8, 6, 6), 3.0),
}


@pytest.mark.parametrize("layout", ["channels first", "channels last"])
@pytest.mark.parametrize("name", MAPS)
def test_equals_the_literal_detection(name: str, layout: str) -> None:
    maps = MAPS[name]
    if layout == "channels last":
        maps = maps[None].contiguous(memory_format=torch.channels_last)[0]
    found = detect(maps)
    # The same float32 differences, so that a determinant of exactly zero is one in both.
    expected = literal_detections(maps.numpy())
    cells = torch.stack([found.channels, found.rows, found.columns], 1).numpy()
    order = np.lexsort(cells.T)
    np.testing.assert_array_equal(
        cells[order], np.argwhere(expected)[np.lexsort(np.argwhere(expected).T)]
    )
    points = localize(maps, found)
    positions, scores, descriptors = literal_points(maps.numpy().astype(np.float64), expected)
    assert len(points.positions) == len(positions)
    if len(positions):
        mine = np.column_stack([points.positions, points.scores, points.descriptors])
        oracle = np.column_stack([positions, scores, descriptors])
        keys = [np.lexsort(np.round(a[:, :3], 3).T) for a in (mine, oracle)]
        np.testing.assert_allclose(mine[keys[0]], oracle[keys[1]], atol=2e-4)


def test_random_maps_have_detections_at_all() -> None:
    assert len(detect(MAPS["relu"])) > 20
    assert len(detect(MAPS["ties of channels and neighbours"])) > 20


def test_newton_step_finds_the_top_of_a_parabola() -> None:
    i, j = np.mgrid[-1:2, -1:2]
    top = (0.2, -0.4)
    patch = 5 - (i - top[0]) ** 2 - 2 * (j - top[1]) ** 2 + 0.5 * (i - top[0]) * (j - top[1])
    step = newton_step(torch.tensor(patch[None], dtype=torch.float64))
    np.testing.assert_allclose(step.numpy(), [top], atol=1e-12)


def test_a_step_of_half_a_cell_drops_the_point() -> None:
    maps = torch.zeros(1, 5, 5)
    maps[0, 2, 1:4] = torch.tensor([1.0, 2.0, 2.0])  # a plateau of two: the top lies between
    maps[0, 1, 2] = maps[0, 3, 2] = 1.0
    found = detect(maps)
    assert [2, 2] in torch.stack([found.rows, found.columns], 1).tolist()
    positions = localize(maps, found).positions.tolist()
    assert all(abs(column - 2) > 1e-6 for row, column in positions if abs(row - 2) < 0.4)


def test_order_is_by_position_whatever_the_layout() -> None:
    maps = MAPS["relu"]
    last = maps[None].contiguous(memory_format=torch.channels_last)[0]
    first, second = detect(maps), detect(last)
    assert torch.equal(first.rows * 31 + first.columns, second.rows * 31 + second.columns)
    assert torch.equal(first.rows * 31 + first.columns, (first.rows * 31 + first.columns).sort()[0])
