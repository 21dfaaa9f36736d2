"""Pooling, and one forward pass for local and global features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fixtures import textured

from reconstruct.features import load_extractor
from reconstruct.features.d2net import D2Net, D2NetConfig
from reconstruct.retrieval.describers import (
    GemConfig,
    VladConfig,
    create_describer,
    gem,
    grid_rows,
)


def test_gem_by_hand() -> None:
    maps = torch.tensor([[[[0.0, 3.0]], [[4.0, 4.0]]]])  # two channels of two cells
    mean = np.array([1.5, 4.0]) / np.hypot(1.5, 4.0)
    np.testing.assert_allclose(gem(maps, 1.0)[0], mean, atol=1e-5)
    cubic = np.array([(27 / 2) ** (1 / 3), 4.0])
    np.testing.assert_allclose(gem(maps, 3.0)[0], cubic / np.linalg.norm(cubic), atol=1e-5)
    np.testing.assert_allclose(gem(maps, 200.0)[0], [0.6, 0.8], atol=2e-3)
    np.testing.assert_allclose(gem(-maps, 3.0)[0], [0.5**0.5] * 2, atol=1e-5)  # all equally small
    assert torch.isfinite(gem(maps * 1e30, 3.0)).all()


def test_grid_is_at_most_as_large_as_asked() -> None:
    maps = torch.rand(2, 8, 5, 40)
    assert grid_rows(maps, 10).shape == (2, 50, 8)
    same = grid_rows(maps[:, :, :, :4], 10)
    np.testing.assert_allclose(same[0, 1] * maps[0, :, 0, 1].norm(), maps[0, :, 0, 1], atol=1e-5)


@pytest.mark.parametrize("config", [GemConfig(), VladConfig(grid=6)])
def test_one_pass_gives_what_two_do(config: GemConfig | VladConfig) -> None:
    image = textured(96, 128)
    local = D2Net(D2NetConfig(max_edge=1024, max_sum_edges=None), device="cpu")
    shared = create_describer(config, local, "cpu")
    found, rows = shared.extract([local.prepare(image)], [shared.prepare(image)])
    alone = local(image)
    np.testing.assert_array_equal(found[0].keypoints, alone.keypoints)
    sift = load_extractor("sift")
    separate = create_describer(config, sift, "cpu")
    _, others = separate.extract([sift.prepare(image)], [separate.prepare(image)])
    np.testing.assert_allclose(rows[0].astype(float), others[0].astype(float), atol=2e-3)
    assert shared.identity() == separate.identity()


def test_pyramid_shows_the_level_of_full_resolution() -> None:
    image = textured(64, 80)
    multi = D2Net(D2NetConfig(multiscale=True), device="cpu")
    single = D2Net(D2NetConfig(), device="cpu")
    rows = [
        create_describer(GemConfig(), local, "cpu").extract([local.prepare(image)], [None])[1][0]
        for local in (multi, single)
    ]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)


def test_too_small_an_image_has_a_zero_row() -> None:
    image = np.zeros((6, 40, 3), np.uint8)
    for name in ("d2net", "sift"):
        local = load_extractor(name, device="cpu")
        describer = create_describer(GemConfig(), local, "cpu")
        _, rows = describer.extract([local.prepare(image)], [describer.prepare(image)])
        np.testing.assert_array_equal(rows[0], np.zeros((1, 512)))


def test_settings_of_learning_do_not_touch_the_rows() -> None:
    local = load_extractor("sift")

    def identity(**settings: float) -> object:
        return create_describer(GemConfig(**settings), local, "cpu").identity()

    assert identity() == identity(dim=64, whitening=1.0)
    assert identity() != identity(power=2.0)
