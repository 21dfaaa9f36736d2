from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from reconstruct.features.tiles import OVERLAP, STEP, in_photo, joined, tile_grid
from reconstruct.types import LocalFeatures


def test_a_small_photo_is_one_tile() -> None:
    (tile,) = tile_grid((600, 400), 600)
    assert (tile.start, tile.stop) == ((0, 0), (600, 400))


@given(st.integers(577, 20000), st.integers(1, 3000), st.integers(577, 1600))
def test_every_pixel_is_in_the_core_of_one_tile(width: int, height: int, edge: int) -> None:
    tiles = tile_grid((width, height), edge)
    for axis, length in enumerate((width, height)):
        spans = sorted({(t.low[axis], t.high[axis], t.start[axis], t.stop[axis]) for t in tiles})
        assert spans[0][0] == -np.inf
        assert spans[-1][1] == np.inf
        assert spans[0][2] == 0
        assert spans[-1][3] == length
        for (_, high, _, stop), (low, _, start, _) in pairwise(spans):
            assert high == low
            assert stop - start >= OVERLAP
            assert min(stop - high, low - start) >= OVERLAP / 2
        for _, _, start, stop in spans:
            assert start % STEP == 0
            assert 0 < stop - start <= edge


def features(keypoints: list[tuple[float, float]]) -> LocalFeatures:
    count = len(keypoints)
    return LocalFeatures(
        keypoints=np.array(keypoints, np.float32).reshape(-1, 2),
        scales=np.ones(count, np.float32),
        scores=np.arange(count, dtype=np.float32),
        descriptors=np.eye(max(count, 4), dtype=np.float32)[:count, :4],
        image_size=(600, 400),
    )


def test_a_keypoint_goes_to_one_tile_in_pixels_of_the_photo() -> None:
    size = (900, 400)
    left, right = tile_grid(size, 600)
    border = left.high[0]
    assert border == right.low[0]
    parts = [
        in_photo(features([(border - t.start[0] + d, 5.5) for d in (-1, 0, 1)]), t, size)
        for t in (left, right)
    ]
    assert [len(part) for part in parts] == [1, 2]
    found = joined(parts)
    np.testing.assert_allclose(found.keypoints[:, 0], [border - 1, border, border + 1])
    np.testing.assert_allclose(found.scores, [0, 1, 2])
    assert found.image_size == size
    assert len(joined([in_photo(features([]), left, size)])) == 0


def test_tiles_of_a_hundred_megapixels_are_few() -> None:
    assert len(tile_grid((11600, 8700), 1400)) == 10 * 8
