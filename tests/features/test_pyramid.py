"""Levels, their sum, the banned cells, and where a cell lies, in both conventions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from fixtures import blob_image, blob_weights, textured
from literal_detection import literal_release

from reconstruct.features.alignment import Alignment, Corners, HalfPixel
from reconstruct.features.d2net import D2Net, D2NetConfig
from reconstruct.features.pyramid import Keypoints, extract_pyramid
from reconstruct.features.vgg import map_size


def _small_network(seed: int = 0) -> torch.nn.Module:
    """A network with D2-Net's strides but 12 channels, so that the literal version is quick."""
    torch.manual_seed(seed)
    layers: list[torch.nn.Module] = [torch.nn.Conv2d(3, 12, 3, padding=1), torch.nn.ReLU()]
    layers += [torch.nn.MaxPool2d(4, 4), torch.nn.AvgPool2d(2, 1)]
    layers += [torch.nn.Conv2d(12, 12, 3, padding=2, dilation=2), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers)


def _image(height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(textured(height, width)).permute(2, 0, 1)[None].float() - 128


def _only(found: Sequence[Keypoints | None]) -> Keypoints:
    (keypoints,) = found
    assert keypoints is not None
    return keypoints


@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 2.0), (0.37, 1.0), (0.5, 0.7, 1.1)])
def test_release_equals_the_literal_pyramid(scales: tuple[float, ...]) -> None:
    image, network = _image(131, 166), _small_network()
    with torch.inference_mode():
        xy, sizes, scores, descriptors = literal_release(image, network, scales)
        found = _only(extract_pyramid(image, network, scales, Corners()))
    assert len(xy) > 60
    distance = np.abs(xy[:, None] - (found.positions.numpy() - 0.5)).max(2)
    distance += 1e3 * ~np.isclose(sizes[:, None], found.scales.numpy())
    nearest = distance.argmin(1)
    close = distance[np.arange(len(xy)), nearest] < 0.01
    assert close.mean() >= 0.995
    assert abs(len(found.scores) - len(xy)) <= 0.005 * len(xy)
    np.testing.assert_allclose(found.scores.numpy()[nearest[close]], scores[close], rtol=1e-3)
    cosines = (found.descriptors.numpy()[nearest[close]] * descriptors[close]).sum(1)
    assert cosines.min() >= 0.9999


@pytest.mark.parametrize("alignment", [Corners(), HalfPixel()])
def test_a_level_without_keypoints_or_too_small_does_not_end_the_pyramid(
    alignment: Alignment,
) -> None:
    image, network = _image(60, 64), _small_network()

    def blind_at_half(images: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = network(images)
        return maps * 0 if images.shape[2] == 30 else maps

    with torch.inference_mode():
        found = _only(extract_pyramid(image, blind_at_half, (0.1, 0.5, 1.0, 2.0), alignment))
        alone = _only(extract_pyramid(image, network, (1.0,), alignment))
    assert set(found.scales.tolist()) == {1.0, 0.5}
    at_one = found.scales == 1
    torch.testing.assert_close(found.positions[at_one], alone.positions)
    torch.testing.assert_close(found.scores[at_one] * 3, alone.scores)  # the third level


def test_levels_apart_are_what_each_is_alone() -> None:
    image, network = _image(60, 64), _small_network()
    scales = (0.5, 1.0, 2.0)
    with torch.inference_mode():
        found = _only(extract_pyramid(image, network, scales, HalfPixel(), summed=False))
        for scale in scales:
            alone = _only(extract_pyramid(image, network, (scale,), HalfPixel()))
            level = found.scales == 1 / scale
            torch.testing.assert_close(found.positions[level], alone.positions)
            torch.testing.assert_close(found.scores[level], alone.scores)
            torch.testing.assert_close(found.descriptors[level], alone.descriptors)
        summed = _only(extract_pyramid(image, network, scales, HalfPixel()))
    assert len(found.scores) > len(summed.scores)


def test_no_level_is_large_enough() -> None:
    assert extract_pyramid(_image(7, 40), _small_network(), (0.5, 1.0), HalfPixel()) == [None]


def test_images_of_a_batch_do_not_mix() -> None:
    images = torch.cat([_image(64, 80), _image(64, 80).flip(3)])
    network = _small_network()
    with torch.inference_mode():
        both = extract_pyramid(images, network, (0.5, 1.0), HalfPixel())
        single = [
            _only(extract_pyramid(image[None], network, (0.5, 1.0), HalfPixel()))
            for image in images
        ]
    for one, other in zip(both, single, strict=True):
        assert one is not None
        torch.testing.assert_close(one.positions, other.positions, atol=1e-3, rtol=0)
        torch.testing.assert_close(one.descriptors, other.descriptors)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_half_pixel_sum_puts_coarse_cell_p_on_fine_cell_2p_plus_1(
    layout: torch.memory_format,
) -> None:
    size, coarse_size = (80, 96), (40, 48)
    coarse = torch.rand(1, 70, *map_size(*coarse_size)).contiguous(memory_format=layout)
    fine = torch.ones(1, 70, *map_size(*size)).contiguous(memory_format=layout)
    HalfPixel().add_coarser(fine, coarse, size, coarse_size)
    height, width = coarse.shape[2:]
    torch.testing.assert_close(
        fine[:, :, 1 : 2 * height : 2, 1 : 2 * width : 2], coarse + 1, atol=1e-6, rtol=0
    )
    between = (coarse[..., :-1] + coarse[..., 1:]) / 2 + 1
    torch.testing.assert_close(fine[:, :, 1 : 2 * height : 2, 2 : 2 * width - 1 : 2], between)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_corner_sum_is_the_interpolation_with_aligned_corners(layout: torch.memory_format) -> None:
    coarse = torch.rand(2, 70, 7, 1).contiguous(memory_format=layout)
    fine = torch.rand(2, 70, 15, 4).contiguous(memory_format=layout)
    upsampled = torch.nn.functional.interpolate(
        coarse, (15, 4), mode="bilinear", align_corners=True
    )
    expected = fine + upsampled
    Corners().add_coarser(fine, coarse, (64, 20), (32, 10))
    torch.testing.assert_close(fine, expected, atol=1e-5, rtol=0)


def test_half_pixel_bans_two_by_two_blocks_around_the_same_point() -> None:
    coarse = torch.zeros(1, 9, 11, dtype=torch.bool)
    coarse[0, 4, 6] = True
    banned = HalfPixel().carry(coarse, (19, 23), (80, 96), (40, 48))
    assert banned[0].nonzero().tolist() == [[8, 12], [8, 13], [9, 12], [9, 13]]


def test_positions_of_cell_zero() -> None:
    cell = torch.zeros(1, 2)
    # 4 p + 3.5 from the first pixel's centre, at twice the size of the input.
    assert HalfPixel().to_input(cell, (64, 64), (32, 32)).tolist() == [[2.0, 2.0]]
    assert HalfPixel().to_input(cell, (32, 32), (32, 32)).tolist() == [[4.0, 4.0]]
    # The release: 1.5 / 2, and half a pixel to COLMAP's origin.
    assert Corners().to_input(cell, (64, 64), (32, 32)).tolist() == [[1.25, 1.25]]


@pytest.mark.parametrize("scales", [(1.0,), (1.0, 2.0)])
def test_a_blob_is_found_at_its_centre_at_any_size(scales: tuple[float, ...]) -> None:
    centers = np.array([[60.3, 50.9], [112.0, 95.25]])
    extractor = D2Net(D2NetConfig(multiscale=True, scales=scales), device="cpu")
    extractor._weights = blob_weights()
    for factor in (0.8, 1.0, 1.3):
        size = (int(170 * factor), int(150 * factor))
        image = blob_image(size, centers * factor, sigma_px=9 * factor)
        keypoints = extractor(image).keypoints
        distance = np.linalg.norm(keypoints[:, None] - centers * factor, axis=2)
        assert (distance.min(axis=0) < 0.3).all(), distance
