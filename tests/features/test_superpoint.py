"""SuperPoint with weights made here: order of pixels, suppression, sampling, files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from reconstruct.errors import WeightsError
from reconstruct.features import load_extractor
from reconstruct.features.superpoint import LAYERS, forward, read_weights, sample, suppress


def random_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    result = {}
    for name, (inputs, outputs, kernel) in LAYERS.items():
        shape = (outputs, inputs, kernel, kernel)
        spread = (2 / (inputs * kernel**2)) ** 0.5
        result[f"{name}.weight"] = torch.randn(shape, generator=generator) * spread
        result[f"{name}.bias"] = torch.randn(outputs, generator=generator) * 0.1
    return result


@pytest.fixture
def weights_file(tmp_path: Path) -> Path:
    path = tmp_path / "superpoint_v1.pth"
    torch.save(random_weights(), path)
    return path


def test_channels_of_a_cell_are_its_pixels_row_by_row() -> None:
    weights = {name: torch.zeros_like(value) for name, value in random_weights().items()}
    weights["convPb.bias"][8 * 3 + 5] = 20.0  # row 3, column 5 of every cell
    probability, descriptors = forward(weights, torch.zeros(1, 1, 19, 26))
    assert probability.shape == (1, 16, 24)
    assert descriptors.shape == (1, 256, 2, 3)
    rows, columns = torch.nonzero(probability[0] > 0.9, as_tuple=True)
    assert set(rows.tolist()) == {3, 11}
    assert set(columns.tolist()) == {5, 13, 21}


def test_suppression_is_greedy_from_the_best_down() -> None:
    # Along a line: 5 takes 4 away, so 3 (beyond the reach of 5) stays although 4 is better.
    scores = torch.tensor([[5.0, 4.0, 3.0, 0.0, 1.0, 0.0]])
    assert suppress(scores, 1).tolist() == [[5.0, 0.0, 3.0, 0.0, 1.0, 0.0]]
    assert suppress(scores, 0).tolist() == scores.tolist()


def test_suppression_agrees_with_a_literal_one() -> None:
    scores = torch.rand(23, 31, generator=torch.Generator().manual_seed(3))
    expected, left = torch.zeros_like(scores), scores.clone()
    while left.max() > 0:
        row, column = divmod(int(left.argmax()), scores.shape[1])
        expected[row, column] = scores[row, column]
        left[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3] = 0
    assert torch.equal(suppress(scores, 2), expected)


def test_descriptor_at_the_centre_of_a_cell_is_the_cells() -> None:
    coarse = torch.nn.functional.normalize(torch.randn(256, 4, 5), dim=0)
    at = torch.tensor([[8.0 * 3 + 4, 8.0 * 2 + 4], [0.0, 0.0]])
    found = sample(coarse, at)
    torch.testing.assert_close(found[0], coarse[:, 2, 3])
    torch.testing.assert_close(found[1], coarse[:, 0, 0])  # beyond the outer centres
    halfway = torch.nn.functional.normalize(coarse[:, 2, 3] + coarse[:, 2, 4], dim=0)
    torch.testing.assert_close(sample(coarse, torch.tensor([[32.0, 20.0]]))[0], halfway)


def test_a_peak_lies_on_the_centre_of_its_pixel(tmp_path: Path) -> None:
    weights = {name: torch.zeros_like(value) for name, value in random_weights().items()}
    weights["convPb.bias"][8 * 3 + 5] = 20.0
    weights["convDb.bias"][0] = 1.0
    torch.save(weights, tmp_path / "w.pth")
    extractor = load_extractor(
        "superpoint", weights=str(tmp_path / "w.pth"), border=4, max_edge=None
    )
    found = extractor(np.zeros((24, 24, 3), np.uint8))
    # Row 3 and column 21 are within 4 px of an edge.
    assert sorted(map(tuple, found.keypoints.tolist())) == [
        (x, y) for x in (5.5, 13.5) for y in (11.5, 19.5)
    ]


def test_limits(weights_file: Path) -> None:
    image = np.random.default_rng(0).integers(0, 255, (80, 96, 3), np.uint8)
    weights = str(weights_file)
    everything = load_extractor("superpoint", weights=weights, threshold=0.0)(image)
    best = load_extractor("superpoint", weights=weights, threshold=0.0, max_keypoints=5)(image)
    assert len(best) == 5 < len(everything)
    assert best.scores.min() >= np.sort(everything.scores)[-5]
    distance = np.abs(everything.keypoints[:, None] - everything.keypoints).max(-1)
    assert distance[~np.eye(len(everything), dtype=bool)].min() > 4


def test_image_smaller_than_a_cell(weights_file: Path) -> None:
    found = load_extractor("superpoint", weights=str(weights_file))(np.zeros((5, 40, 3), np.uint8))
    assert found.descriptors.shape == (0, 256)


def test_identity_follows_the_weights_and_not_their_path(
    tmp_path: Path, weights_file: Path
) -> None:
    torch.save(random_weights(), tmp_path / "copy.pth")
    torch.save(random_weights(1), tmp_path / "other.pth")
    files = weights_file, tmp_path / "copy.pth", tmp_path / "other.pth"
    one, copy, other = (load_extractor("superpoint", weights=str(f)).identity() for f in files)
    assert one == copy != other


def test_unusable_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such weights file"):
        read_weights(tmp_path / "absent.pth")
    (tmp_path / "bad.pth").write_bytes(b"nonsense")
    with pytest.raises(WeightsError, match="not a readable"):
        read_weights(tmp_path / "bad.pth")
    partial = random_weights()
    del partial["convDb.bias"]
    torch.save(partial, tmp_path / "partial.pth")
    with pytest.raises(WeightsError, match=r"convDb\.bias"):
        read_weights(tmp_path / "partial.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match=r"conv1a\.weight"):
        read_weights(tmp_path / "list.pth")
