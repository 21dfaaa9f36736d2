from __future__ import annotations

import numpy as np
import pytest
import torch

from reconstruct.features.vgg import build_trunk
from reconstruct.features.weights import TrunkWeights, load_weights
from reconstruct.geometry import Float64
from reconstruct.training.data.layout import LAYOUTS, Mask, correspondences, point_correspondences
from reconstruct.training.network import FrozenTrunk, make_head

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights() -> TrunkWeights:
    return load_weights("vgg16")


def test_cells_by_hand() -> None:
    release, test_time = LAYOUTS["release"], LAYOUTS["test_time"]
    assert (release.cells(64), test_time.cells(64), test_time.cells(3)) == (8, 15, 0)
    # Pixel indices 8p + 3.5 and 4p + 3.5; COLMAP counts half a pixel more.
    assert release.centres(24)[:4].tolist() == [[4, 4], [12, 4], [20, 4], [4, 12]]
    assert test_time.centres(16)[-1].tolist() == [12, 12]
    positions = np.array([[4.0, 4.0], [15.9, 8.1], [-0.1, 4.0], [np.nan, 4.0], [24.1, 4.0]])
    cells, inside = release.nearest(positions, 24)
    assert inside.tolist() == [True, True, False, False, False]
    assert cells[:2].tolist() == [0, 4]


def test_a_shift_by_one_cell() -> None:
    def mapping(positions: Float64) -> tuple[Float64, Mask]:
        return positions + np.array([8.0, 0.0]), positions[:, 1] < 10

    cells = correspondences(LAYOUTS["release"], 24, mapping)
    assert cells.tolist() == [[0, 1], [1, 2]]
    nothing = correspondences(LAYOUTS["release"], 24, lambda p: (p + 100.0, p[:, 0] > 0))
    assert nothing.shape == (0, 2)


def test_points_in_one_cell_count_once() -> None:
    a = np.array([[4.0, 4.0], [5.0, 5.0], [12.0, 4.0], [99.0, 4.0]])
    cells = point_correspondences(LAYOUTS["release"], 24, a, a[:, ::-1].copy())
    assert cells.tolist() == [[0, 0], [1, 3]]
    assert point_correspondences(LAYOUTS["release"], 24, a[:0], a[:0]).shape == (0, 2)


@pytest.mark.parametrize(("layout", "edge"), [("release", 152), ("test_time", 80)])
def test_a_cell_lies_where_it_looks(layout: str, edge: int, weights: TrunkWeights) -> None:
    """A network without left and right, a cell whose centre is that of the image: turning the
    image upside down changes nothing there, and does change the cells around."""
    chosen = LAYOUTS[layout]
    middle = chosen.cells(edge) // 2
    assert chosen.centres(edge)[middle * chosen.cells(edge) + middle].tolist() == [edge / 2] * 2
    equal = {
        name: np.full_like(value, 1e-3 if name.endswith("weight") else 0.0)
        for name, value in weights.tensors.items()
    }
    trunk = FrozenTrunk(TrunkWeights(equal, weights.preprocessing), layout, "float32", CPU)
    head = make_head(equal, layout, CPU)
    image = np.random.default_rng(0).integers(0, 256, (1, edge, edge, 3)).astype(np.uint8)
    with torch.no_grad():
        first, second = (head(trunk(x))[0, 0] for x in (image, image[:, ::-1, ::-1].copy()))
    assert float(first[middle, middle]) == pytest.approx(float(second[middle, middle]), rel=1e-4)
    assert abs(float(first[middle, middle + 1] / second[middle, middle + 1]) - 1) > 1e-4


def test_test_time_is_the_network_that_extracts(weights: TrunkWeights) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 72, 3)).astype(np.uint8)
    trunk = FrozenTrunk(weights, "test_time", "float32", CPU)
    head = make_head(weights.tensors, "test_time", CPU)
    whole = build_trunk(weights.tensors, use_relu=False)
    caffe = image[..., ::-1].astype(np.float32) - np.array(weights.preprocessing.mean, np.float32)
    with torch.no_grad():
        expected = whole(torch.from_numpy(caffe).permute(0, 3, 1, 2).contiguous())
        found = head(trunk(image))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-2)
