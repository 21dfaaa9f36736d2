"""D2-Net's settings, input sizes, and options."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures import textured
from safetensors.numpy import save_file

from reconstruct.config import validate
from reconstruct.errors import ConfigError, UsageError, WeightsError
from reconstruct.features import load_extractor
from reconstruct.features.d2net import D2Net, D2NetConfig
from reconstruct.features.vgg import normalised
from reconstruct.features.weights import CAFFE, TORCHVISION, load_weights

OTHER_VALUES: dict[str, Any] = {
    "multiscale": True,
    "scales": [0.5, 1],
    "max_edge": None,
    "max_sum_edges": 2000,
    "tiles": True,
    "levels": "apart",
    "cell_center": "release",
    "use_relu": False,
    "max_keypoints": 7,
    "score_threshold": 1.5,
    "min_distance_px": 3,
    "fp16": True,
}
OUTSIDE_IDENTITY: dict[str, Any] = {
    "backend": "torch",
    "mirrors": ["https://example.org/"],
    "cache_dir": "/elsewhere",
}


def test_every_setting_is_in_the_identity_or_known_to_be_outside(tmp_path: Path) -> None:
    fields = set(D2NetConfig.model_fields)
    assert fields == {"name", "weights", *OTHER_VALUES, *OUTSIDE_IDENTITY}
    base = load_extractor("d2net").identity()
    for name, value in OTHER_VALUES.items():
        assert load_extractor("d2net", **{name: value}).identity() != base, name
    for name, value in OUTSIDE_IDENTITY.items():
        assert load_extractor("d2net", **{name: value}).identity() == base, name


def test_identity_follows_the_content_of_the_weights(tmp_path: Path) -> None:
    tensors = dict(load_weights("vgg16").tensors)
    save_file(tensors, tmp_path / "copy.safetensors")
    base = load_extractor("d2net").identity()
    copy = load_extractor("d2net", weights=str(tmp_path / "copy.safetensors"))
    assert copy.identity() == base
    tensors["conv4_3.bias"] = tensors["conv4_3.bias"] + np.float32(1e-3)
    save_file(tensors, tmp_path / "other.safetensors")
    other = load_extractor("d2net", weights=str(tmp_path / "other.safetensors"))
    assert other.identity() != base


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("weights", "d2_ft", "unknown weights 'd2_ft' .did you mean 'd2_tf'.*path of a file"),
        ("scales", [], "one or more numbers"),
        ("scales", [1, 0.5], r"ascending.*\[1.0, 0.5\]"),
        ("scales", [0, 1], "ascending"),
        ("scales", [1, float("nan")], "finite number"),
        ("scales", [1, 80], r"\(0, 8\]"),
        ("scales", "1", "valid tuple"),
        ("max_edge", 15, "greater than or equal to 16"),
        ("max_edge", 100.5, "valid integer"),
        ("cell_center", "centre", "'corrected' or 'release'"),
        ("max_keypoints", 0, "greater than 0"),
        ("min_distance_px", 0, "greater than 0"),
        ("multiscale", "yes", "valid boolean"),
    ],
)
def test_wrong_values_are_named(key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}.*{message}"):
        validate(D2NetConfig, {key: value}, "pipeline.yaml")


def test_missing_weights_fail_with_the_first_use() -> None:
    extractor = load_extractor("d2net", weights="absent.pth")
    with pytest.raises(WeightsError, match=r"absent\.pth: no such"):
        extractor.identity()


def test_input_limits_and_photo_coordinates() -> None:
    photo = textured(300, 400)
    extractor = D2Net(D2NetConfig(max_edge=200, max_sum_edges=300), device="cpu")
    assert extractor.prepare(photo).shape == (128, 171, 3)  # 300 / 700 of 400 x 300, rounded down
    features = extractor(photo)
    assert features.image_size == (400, 300)
    assert (features.keypoints.max(axis=0) > (300, 220)).all()
    release = D2Net(D2NetConfig(max_edge=200, max_sum_edges=300, cell_center="release"))
    assert release.prepare(photo).shape == (128, 171, 3)  # first 200 x 150, then the sum


def test_images_of_another_kind_are_refused() -> None:
    extractor = D2Net(D2NetConfig())
    for image in (np.zeros((9, 9), np.uint8), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3))):
        with pytest.raises(ValueError, match=r"expected an \(H, W, 3\) uint8"):
            extractor.prepare(image)
    batch = [extractor.prepare(textured(20, width)) for width in (20, 24)]
    with pytest.raises(ValueError, match="expected one shape"):
        extractor.extract(batch)


def test_release_is_corrected_minus_two_pixels_at_one_scale() -> None:
    image = textured(120, 160)
    corrected = D2Net(D2NetConfig())(image)
    release = D2Net(D2NetConfig(cell_center="release"))(image)
    np.testing.assert_allclose(release.keypoints + 2, corrected.keypoints, atol=1e-4)
    np.testing.assert_allclose(release.descriptors, corrected.descriptors, atol=1e-5)


@pytest.mark.parametrize("cell_center", ["corrected", "release"])
def test_rows_and_columns_are_treated_alike(cell_center: str) -> None:
    image = textured(130, 170)
    settings = {"cell_center": cell_center, "multiscale": True, "scales": (0.7, 1.3)}
    config = D2NetConfig.model_validate(settings)
    weights = load_weights("vgg16")
    tensors = {
        name: np.ascontiguousarray(value.swapaxes(-1, -2)) if value.ndim == 4 else value
        for name, value in weights.tensors.items()
    }
    plain, transposed = D2Net(config, device="cpu"), D2Net(config, device="cpu")
    transposed._weights = replace(weights, tensors=tensors)
    a, b = plain(image), transposed(np.ascontiguousarray(image.swapaxes(0, 1)))
    distance = np.abs(a.keypoints[:, None] - b.keypoints[:, ::-1]).max(2)
    # Half way between two coarse cells the ban rounds up, along both axes alike.
    assert (distance.min(1) < 1e-2).mean() > 0.99
    assert len(a) == len(b) > 50


def test_multiscale_reports_scales_and_backends_agree() -> None:
    image = textured(150, 130)
    a, b = (
        D2Net(D2NetConfig(multiscale=True, backend=backend), device="cpu")(image)
        for backend in ("torch", "onnxruntime")
    )
    assert set(a.scales.tolist()) == {2.0, 1.0, 0.5}
    assert len(a) == len(b)
    np.testing.assert_allclose(a.keypoints, b.keypoints, atol=1e-2)
    np.testing.assert_allclose(a.scores, b.scores, rtol=1e-3)
    assert (a.descriptors * b.descriptors).sum(1).min() > 0.9999


def test_without_relu_descriptors_have_both_signs() -> None:
    features = D2Net(D2NetConfig(use_relu=False))(textured(90, 90))
    assert len(features) > 5
    assert features.descriptors.min() < 0


def test_limits_on_the_number_of_keypoints() -> None:
    image = textured(150, 150)
    full = D2Net(D2NetConfig())(image)
    few = D2Net(D2NetConfig(max_keypoints=10))(image)
    assert len(few) == 10 < len(full)
    assert few.scores.min() == np.sort(full.scores)[-10]
    threshold = float(np.median(full.scores))
    assert D2Net(D2NetConfig(score_threshold=threshold))(image).scores.min() >= threshold
    spread = D2Net(D2NetConfig(min_distance_px=20))(image).keypoints
    distance = np.linalg.norm(spread[:, None] - spread, axis=2) + 1e3 * np.eye(len(spread))
    assert distance.min() > 20


def test_preprocessing_belongs_to_the_weights() -> None:
    pixel = np.array([[[255, 128, 0]]], np.uint8)
    for preprocessing, expected in (
        (CAFFE, [0 - 103.939, 128 - 116.779, 255 - 123.68]),
        (TORCHVISION, [0.515 / 0.229, (128 / 255 - 0.456) / 0.224, -0.406 / 0.225]),
    ):
        values = normalised([pixel], preprocessing, torch.device("cpu"))
        np.testing.assert_allclose(values.flatten(), expected, atol=1e-4)


def test_an_absent_device_is_an_error() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    with pytest.raises(UsageError, match="CUDA device"):
        D2Net(D2NetConfig(), device="cuda")(textured(20, 20))


def test_settings_and_identity_need_no_torch() -> None:
    code = (
        "import sys; from reconstruct.features import load_extractor; "
        "load_extractor('d2net').identity(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_features_without_tiles_are_those_of_before_there_were_any() -> None:
    assert "tiles" not in D2NetConfig().identity()
    assert "tiles" not in load_extractor("d2net").identity()
    assert "levels" not in load_extractor("d2net", multiscale=True).identity()
    assert load_extractor("d2net", levels="apart").identity()["levels"] == "apart"
    with pytest.raises(ConfigError, match="tiles: needs max_edge"):
        load_extractor("d2net", tiles=True, max_edge=400)
    with pytest.raises(ConfigError, match="tiles: needs max_edge"):
        load_extractor("d2net", tiles=True, max_edge=None, max_sum_edges=None)


def test_tiles_find_what_the_whole_photo_has_at_full_resolution() -> None:
    """Away from the photo's border the same keypoints, each once, with the same descriptors."""
    image = textured(320, 800, seed=3)
    whole = load_extractor("d2net", max_edge=None, max_sum_edges=None)(image)
    tiled = load_extractor("d2net", max_edge=600, max_sum_edges=None, tiles=True)(image)
    assert tiled.image_size == (800, 320)
    order = [np.lexsort(f.keypoints.T) for f in (whole, tiled)]
    first, second = whole.select(order[0]), tiled.select(order[1])
    near = [set(map(tuple, np.round(f.keypoints, 1).tolist())) for f in (first, second)]
    common = near[0] & near[1]
    assert len(common) > 0.99 * len(near[0])
    assert len(second) < 1.01 * len(first), "none twice where tiles overlap"
    assert len(common) > 100
    places = [list(map(tuple, np.round(f.keypoints, 1).tolist())) for f in (first, second)]
    rows = dict(zip(places[0], first.descriptors, strict=True))
    for place, descriptor in zip(places[1], second.descriptors, strict=True):
        assert place not in rows or rows[place] @ descriptor > 0.999


def test_tiles_share_the_limit_on_keypoints() -> None:
    image = textured(240, 900, seed=3)
    image[:, :450] //= 8  # a dark half, whose scores are low
    settings = {"max_edge": 600, "max_sum_edges": None, "max_keypoints": 200}
    tiled = load_extractor("d2net", **settings, tiles=True)(image)
    assert len(tiled) <= 200
    assert (tiled.keypoints[:, 0] < 400).sum() > 40
    shrunk = load_extractor("d2net", **settings)(image)
    assert (shrunk.keypoints[:, 0] < 400).sum() < (tiled.keypoints[:, 0] < 400).sum()
