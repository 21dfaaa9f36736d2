"""Dense matching of grids: what matches, bounds, and the empty case."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fixtures import textured
from numpy.typing import NDArray

from reconstruct.features import load_extractor
from reconstruct.matching.dense import grid_shape, make_grid, match_grids


def field(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """(rows, columns, 16) descriptors that change smoothly, so blocks resemble their cells."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn((1, 16, rows // 4 + 2, columns // 4 + 2), generator=generator)
    grid = torch.nn.functional.interpolate(coarse, (rows, columns), mode="bicubic")[0]
    noise = 0.3 * torch.randn((16, rows, columns), generator=generator)
    return torch.nn.functional.normalize(grid + noise, dim=0).permute(1, 2, 0)


def matches(
    first: torch.Tensor, second: torch.Tensor, min_score: float | None = None
) -> NDArray[np.int64]:
    grids = [
        make_grid(grid.reshape(-1, 16), (grid.shape[0], grid.shape[1]), 4)
        for grid in (first, second)
    ]
    found = match_grids(*grids, coarse=4, margin=2, min_score=min_score)
    return found.indices.astype(np.int64)


def test_a_grid_matches_itself_cell_by_cell() -> None:
    grid = field(14, 19)
    found = matches(grid, grid)
    np.testing.assert_array_equal(found[:, 0], found[:, 1])
    assert len(found) == 12 * 16  # what is left over beside whole blocks is not matched


def test_a_shift_that_is_no_multiple_of_blocks() -> None:
    large = field(30, 40)
    first, second = large[4:28, 4:36], large[5:29, 6:38]
    found = matches(first, second)
    rows, columns = np.divmod(found, 32)
    good = (rows[:, 0] - rows[:, 1] == 1) & (columns[:, 0] - columns[:, 1] == 2)
    assert len(found) > 350
    assert good.mean() > 0.9
    for side in (0, 1):  # no cell twice
        assert len(np.unique(found[:, side])) == len(found)
    assert (np.diff(found[:, 0]) > 0).all()


def test_least_cosine_and_nothing_to_match() -> None:
    first, second = field(14, 19), field(14, 19, seed=1)
    i, j = matches(first, second).T
    cosines = (first.reshape(-1, 16)[i] * second.reshape(-1, 16)[j]).sum(dim=1).numpy()
    middle = float(np.median(cosines))
    kept = matches(first, second, min_score=middle)
    assert kept[:, 0].tolist() == i[cosines >= middle].tolist()
    assert 0 < len(kept) < len(i)
    assert matches(first[:3], second).shape == (0, 2)
    assert matches(first[:0], second).shape == (0, 2)


def test_the_grid_of_an_image() -> None:
    extractor = load_extractor("grid", device="cpu")
    found = extractor(textured(50, 70))
    rows, columns = grid_shape(found.keypoints)
    assert (rows, columns) == (11, 16)  # 50 // 4 - 1, 70 // 4 - 1
    np.testing.assert_array_equal(found.keypoints[0], [4, 4])  # see alignment.py
    np.testing.assert_array_equal(found.keypoints[17], [8, 8])
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-5)
    wide = load_extractor("grid", device="cpu", step=2)(textured(50, 70))
    assert grid_shape(wide.keypoints) == (5, 8)
    # Two cells, at 4 and 8, have their common centre at 6.
    np.testing.assert_array_equal(wide.keypoints[0], [6, 6])
    np.testing.assert_array_equal(wide.scales, 8.0)


def test_a_set_of_keypoints_is_no_grid() -> None:
    assert grid_shape(np.zeros((0, 2))) == (0, 0)
    points = np.random.default_rng(0).uniform(0, 9, (12, 2))
    with pytest.raises(ValueError, match="on a grid"):
        grid_shape(np.column_stack([points[:, 0], np.sort(points[:, 1])])[:11])
