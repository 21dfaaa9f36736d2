"""The contract of every registered extractor. A new one needs a line in `SETTINGS`."""

from __future__ import annotations

import importlib.util
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_kornia
import test_r2d2
import test_superpoint
import torch
from fixtures import textured

from reconstruct.errors import ConfigError, UnknownNameError
from reconstruct.features import (
    EXTRACTORS,
    Extractor,
    ReadsFiles,
    config_class,
    create,
    load_extractor,
)
from reconstruct.types import LocalFeatures

Maker = Callable[[], Extractor]


def _superpoint(folder: Path) -> dict[str, Any]:
    path = folder / "superpoint.pth"
    torch.save(test_superpoint.random_weights(), path)
    return {"weights": str(path), "threshold": 0.0, "border": 0}


def _r2d2(folder: Path) -> dict[str, Any]:
    weights = test_r2d2.random_weights(folder / "r2d2.pt")
    return {"weights": str(weights), "reliability": 0.0, "repeatability": 0.0}


def _kornia(folder: Path) -> dict[str, Any]:
    return {"model": "disk", "weights": test_kornia.random_weights("disk", folder)}


SETTINGS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "d2net": lambda folder: {},
    "grid": lambda folder: {},
    "hesaff": lambda folder: {},
    "kornia": _kornia,
    "precomputed": lambda folder: {},
    "r2d2": _r2d2,
    "sift": lambda folder: {},
    "superpoint": _superpoint,
    "together": lambda folder: {},
}
"""Settings with which each works offline, with random weights where none are shipped."""

LIBRARIES = {"hesaff": "pyhesaff", "kornia": "kornia"}
"""Optional libraries: an extractor without its own is skipped."""

FROM_PIXELS = sorted(set(EXTRACTORS) - {"precomputed"})


@pytest.fixture(scope="module", params=FROM_PIXELS)
def maker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Makes new ones of equal settings."""
    name = request.param
    if importlib.util.find_spec(LIBRARIES.get(name, "numpy")) is None:
        pytest.skip(f"{LIBRARIES[name]} is not installed")
    settings = SETTINGS[name](tmp_path_factory.mktemp(name))
    return lambda: load_extractor(name, device="cpu", **settings)


@pytest.fixture(scope="module")
def extractor(maker: Maker) -> Extractor:
    return maker()


def test_every_registered_extractor_is_tested_here() -> None:
    assert sorted(SETTINGS) == sorted(EXTRACTORS)
    assert isinstance(load_extractor("precomputed"), ReadsFiles)


def assert_valid(features: LocalFeatures, size: tuple[int, int], dim: int) -> None:
    count = len(features)
    assert features.image_size == size
    for array, shape in (
        (features.keypoints, (count, 2)),
        (features.scales, (count,)),
        (features.scores, (count,)),
        (features.descriptors, (count, dim)),
    ):
        assert array.shape == shape
        assert array.dtype == np.float32
        assert np.isfinite(array).all()
    assert (features.keypoints >= 0).all()
    assert (features.keypoints <= size).all()
    np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, atol=1e-3)


def assert_same(first: LocalFeatures, second: LocalFeatures) -> None:
    np.testing.assert_array_equal(first.keypoints, second.keypoints)
    np.testing.assert_array_equal(first.scales, second.scales)
    np.testing.assert_array_equal(first.scores, second.scores)
    np.testing.assert_array_equal(first.descriptors, second.descriptors)


def test_features_of_an_image(extractor: Extractor) -> None:
    features = extractor(textured(100, 140))
    assert len(features) > 10
    assert_valid(features, (140, 100), extractor.dim)


@pytest.mark.parametrize("shape", [(80, 120), (1, 1), (3, 50), (50, 3), (15, 15), (16, 8)])
def test_flat_and_tiny_images(extractor: Extractor, shape: tuple[int, int]) -> None:
    features = extractor(np.full((*shape, 3), 90, np.uint8))
    assert_valid(features, shape[::-1], extractor.dim)
    if min(shape) < 4:
        assert len(features) == 0, "less than any network's stride"


def test_tiny_images_with_texture_do_not_fail(extractor: Extractor) -> None:
    for shape in ((1, 1), (7, 30), (8, 8), (15, 15)):
        assert_valid(extractor(textured(*shape)), shape[::-1], extractor.dim)


def test_a_batch_equals_its_images(extractor: Extractor) -> None:
    images = [textured(64, 72, seed) for seed in (1, 2)]
    batch = extractor.extract([extractor.prepare(image) for image in images])
    for image, features in zip(images, batch, strict=True):
        single = extractor(image)
        assert len(features) == len(single) > 0
        np.testing.assert_allclose(features.keypoints, single.keypoints, atol=1e-2)
    assert extractor.extract([]) == []


def test_prepared_images_tell_their_shape(extractor: Extractor) -> None:
    shapes = [extractor.prepare(textured(*size)).shape for size in ((64, 72), (64, 72), (64, 73))]
    assert shapes[0] == shapes[1] != shapes[2]


def test_pickling_before_and_after_use(maker: Maker) -> None:
    image, extractor = textured(64, 64), maker()
    copy = pickle.loads(pickle.dumps(extractor))
    features = extractor(image)
    dump = pickle.dumps(extractor)
    assert len(dump) < 10_000  # settings, no network
    for other in (copy, pickle.loads(dump)):
        assert_same(other(image), features)


def test_the_same_image_gives_the_same_features(extractor: Extractor, maker: Maker) -> None:
    image = textured(64, 72)
    first = extractor(image)
    extractor(textured(80, 90, seed=1))  # what came before leaves no trace
    assert_same(extractor(image), first)
    assert_same(maker()(image.copy()), first)


def test_the_image_is_left_as_it_was(extractor: Extractor) -> None:
    image = textured(64, 72)
    before = image.copy()
    image.flags.writeable = False
    extractor(image)
    np.testing.assert_array_equal(image, before)


def test_identity_is_plain_data_and_knows_no_device(extractor: Extractor, maker: Maker) -> None:
    identity = extractor.identity()
    assert json.loads(json.dumps(identity)) == identity
    assert identity == maker().identity()
    assert not {"device", "cpu", "cuda"} & {str(part) for item in identity.items() for part in item}
    elsewhere = create(extractor.config, "auto")
    assert elsewhere.identity() == identity


@pytest.mark.parametrize("name", sorted(EXTRACTORS))
def test_wrong_names_and_settings(name: str) -> None:
    with pytest.raises(ConfigError, match=r"colour.*unknown key"):
        load_extractor(name, colour=True)
    with pytest.raises(UnknownNameError, match=name):
        load_extractor("nothing")


@pytest.mark.parametrize("name", sorted(EXTRACTORS))
def test_making_one_does_no_work(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        pytest.fail("read a file in the constructor")

    config = config_class(name).model_construct(weights="absent.pth")
    monkeypatch.setattr("builtins.open", fail)
    assert create(config, "cpu").config is config
