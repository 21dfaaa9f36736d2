"""D2-Net on real photos: exact against the literal version, and the same at any image size."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from literal_detection import literal_release
from numpy.typing import NDArray

from reconstruct.features.backend import make_network
from reconstruct.features.d2net import D2Net, D2NetConfig
from reconstruct.features.resizing import ResizedImage
from reconstruct.features.vgg import normalised
from reconstruct.features.weights import load_weights
from reconstruct.images import read_image
from reconstruct.types import ImageArray, LocalFeatures

pytestmark = pytest.mark.real

PHOTOS = (
    "strecha/fountain-P11/images/0003.jpg",
    "strecha/fountain-P11/images/0007.jpg",
    "strecha/herz-jesu-P8/images/0003.jpg",
    "strecha/herz-jesu-P8/images/0006.jpg",
)


def _resized(image: ImageArray, size: tuple[int, int]) -> ImageArray:
    shrinks = size[0] < image.shape[1]
    kind = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, size, interpolation=kind), np.uint8)


def _photo(path: Path, longest_px: int) -> ImageArray:
    image = read_image(path)
    factor = longest_px / max(image.shape)
    return _resized(image, (int(image.shape[1] * factor), int(image.shape[0] * factor)))


@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 2.0)])
def test_release_equals_the_literal_version(shared_data: Path, scales: tuple[float, ...]) -> None:
    image = _photo(shared_data / PHOTOS[0], 640 if len(scales) == 1 else 280)
    config = D2NetConfig(cell_center="release", multiscale=True, scales=scales)
    found = D2Net(config, device="cpu")(image)
    weights, cpu = load_weights("vgg16"), torch.device("cpu")
    network = make_network("torch", weights.tensors, use_relu=True, device=cpu)
    with torch.inference_mode():
        pixels = normalised([image], weights.preprocessing, cpu)
        xy, sizes, scores, descriptors = literal_release(pixels, network, scales)
    assert len(xy) > 300
    distance = np.abs(xy[:, None] - (found.keypoints - 0.5)).max(2)
    distance += 1e3 * ~np.isclose(sizes[:, None], found.scales)
    nearest = distance.argmin(1)
    close = distance.min(1) < 0.01
    assert close.mean() >= 0.995
    assert (distance.min(0) < 0.01).mean() >= 0.995  # and none that the literal one lacks
    np.testing.assert_allclose(found.scores[nearest[close]], scores[close], rtol=1e-3)
    cosines = (found.descriptors[nearest[close]] * descriptors[close]).sum(1)
    assert cosines.min() >= 0.9999


def _offsets(first: LocalFeatures, second: LocalFeatures) -> NDArray[np.float64]:
    """(M, 2) position of a match in the second image minus where the first one puts it, among
    mutual nearest neighbours less than 4 px apart."""
    similarity = first.descriptors @ second.descriptors.T
    forward = similarity.argmax(1)
    mutual = similarity.argmax(0)[forward] == np.arange(len(first))
    ratio = np.array(second.image_size) / first.image_size
    offsets = second.keypoints[forward[mutual]] - first.keypoints[mutual] * ratio
    return np.asarray(offsets[np.abs(offsets).max(1) < 4])


FACTORS = (0.5, 0.7, 1.3)


def _offsets_at_factors(extractor: D2Net, image: ImageArray) -> dict[float, NDArray[np.float64]]:
    height, width = image.shape[:2]
    features = extractor(image)
    return {
        factor: _offsets(
            features, extractor(_resized(image, (round(width * factor), round(height * factor))))
        )
        for factor in FACTORS
    }


@pytest.mark.slow
def test_a_photo_matches_itself_at_another_size_multiscale(shared_data: Path) -> None:
    config = D2NetConfig(multiscale=True, max_edge=None, max_sum_edges=None)
    image = _photo(shared_data / PHOTOS[0], 640)
    for factor, offsets in _offsets_at_factors(D2Net(config, device="cpu"), image).items():
        median = np.median(offsets, axis=0)
        assert len(offsets) > 200
        assert (np.abs(median) < 0.15).all(), (factor, median)


@pytest.fixture(scope="module")
def single_scale_medians(shared_data: Path) -> dict[float, NDArray[np.float64]]:
    """Factor -> median offset (x, y) in pixels, over the matches of three photos."""
    config = D2NetConfig(max_edge=None, max_sum_edges=None)
    parts: dict[float, list[NDArray[np.float64]]] = {factor: [] for factor in FACTORS}
    for name in PHOTOS[:3]:
        image = _photo(shared_data / name, 800)
        for factor, offsets in _offsets_at_factors(D2Net(config, device="cpu"), image).items():
            parts[factor].append(offsets)
    return {factor: np.median(np.concatenate(part), axis=0) for factor, part in parts.items()}


@pytest.mark.slow
def test_photos_match_themselves_at_another_size_along_x(
    single_scale_medians: dict[float, NDArray[np.float64]],
) -> None:
    for factor, median in single_scale_medians.items():
        assert abs(median[0]) < 0.15, (factor, median)


@pytest.mark.slow
@pytest.mark.xfail(
    reason="0.45 px at 0.5 and 0.23 px at 0.7 times the size, cause unproven", strict=True
)
def test_photos_match_themselves_at_another_size_along_y(
    single_scale_medians: dict[float, NDArray[np.float64]],
) -> None:
    for factor, median in single_scale_medians.items():
        assert abs(median[1]) < 0.15, (factor, median)


@pytest.mark.slow
def test_the_release_is_off(shared_data: Path) -> None:
    config = D2NetConfig(cell_center="release", max_edge=None, max_sum_edges=None)
    image = _photo(shared_data / PHOTOS[0], 640)
    offsets = _offsets_at_factors(D2Net(config, device="cpu"), image)[0.7]
    assert np.abs(np.median(offsets, axis=0)).max() > 0.3


def test_backends_agree(shared_data: Path) -> None:
    image = _photo(shared_data / PHOTOS[1], 400)
    prepared = ResizedImage(image, (image.shape[1], image.shape[0]))
    a, b = (
        D2Net(D2NetConfig(backend=backend), device="cpu").extract([prepared])[0]
        for backend in ("torch", "onnxruntime")
    )
    assert abs(len(a) - len(b)) <= 0.005 * len(a)
    distance = np.abs(a.keypoints[:, None] - b.keypoints).max(2)
    assert (distance.min(1) < 0.01).mean() >= 0.995
