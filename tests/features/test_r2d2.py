"""R2D2 with weights made here: the network against torch's own layers, its pyramid, its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from reconstruct.errors import WeightsError
from reconstruct.features import load_extractor
from reconstruct.features.r2d2 import (
    CONVOLUTIONS,
    LAST,
    R2D2Config,
    forward,
    layout,
    maxima,
    pyramid,
    read_weights,
)


def random_weights(path: Path, seed: int = 0) -> Path:
    """A file in the authors' layout."""
    generator = torch.Generator().manual_seed(seed)
    entries = {}
    for name, shape in layout().items():
        if name.endswith("running_var"):
            value = torch.rand(shape, generator=generator) + 0.5
        else:
            spread = (2 / max(int(np.prod(shape[1:])), 1)) ** 0.5
            spread *= 1e-3 if name.startswith(("clf", "sal")) else 1  # of squares
            value = torch.randn(shape, generator=generator) * spread
        entries[f"module.{name}"] = value
        if name.endswith("running_var"):
            entries[f"module.{name[:-11]}num_batches_tracked"] = torch.tensor(7)
    torch.save({"net": "Quad_L2Net_ConfCFS()", "state_dict": entries}, path)
    return path


def test_the_network_is_that_of_the_layers(tmp_path: Path) -> None:
    weights = read_weights(random_weights(tmp_path / "r2d2.pt"))
    layers: list[nn.Module] = []
    for place, (inputs, outputs, kernel, dilation) in CONVOLUTIONS.items():
        padding = (kernel - 1) * dilation // 2
        layers.append(nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation))
        if place != LAST:
            layers.append(nn.BatchNorm2d(outputs, affine=False))
        if kernel == 3:
            layers.append(nn.ReLU())
        assert isinstance(layers[place], nn.Conv2d), "places as in the authors' list"
    network = nn.Sequential(*layers).eval()
    own = {k.removeprefix("ops."): v for k, v in weights.items() if k.startswith("ops.")}
    missing = network.load_state_dict(own, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in missing.missing_keys)
    image = torch.randn(1, 3, 40, 33, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = network(image)
        descriptors, reliability, repeatability = forward(weights, image)
    assert reliability.shape == repeatability.shape == (40, 33)
    np.testing.assert_allclose(descriptors, nn.functional.normalize(expected)[0], atol=1e-5)
    classes = nn.functional.conv2d(expected**2, weights["clf.weight"], weights["clf.bias"])[0]
    np.testing.assert_allclose(reliability, (classes[1] - classes[0]).sigmoid(), atol=1e-5)
    assert reliability.std() > 0.01
    value = nn.functional.conv2d(expected**2, weights["sal.weight"], weights["sal.bias"])[0, 0]
    positive = value.exp().log1p()
    np.testing.assert_allclose(repeatability, positive / (1 + positive), atol=1e-5)


def test_levels_of_the_pyramid() -> None:
    config = R2D2Config(weights="none", scale_step=2.0, min_size=50)
    sizes = [tuple(level.shape[2:]) for level in pyramid(torch.zeros(1, 3, 150, 201), config)]
    assert sizes == [(150, 201), (75, 100), (38, 50)]
    small = [tuple(level.shape[2:]) for level in pyramid(torch.zeros(1, 3, 30, 40), config)]
    assert small == [(30, 40)], "a photo below the smallest size is seen as it is"


def test_maxima_are_largest_within_three_by_three() -> None:
    values = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 3.0]])
    assert maxima(values).tolist() == [[False, True, False, False], [False, False, False, True]]


def test_keypoints_are_centres_of_pixels_of_their_level(tmp_path: Path) -> None:
    weights = random_weights(tmp_path / "r2d2.pt")
    extractor = load_extractor(
        "r2d2", weights=str(weights), reliability=0.0, repeatability=0.0, scale_step=2.0,
        min_size=32, max_keypoints=None,
    )  # fmt: skip
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    found = extractor(image)
    assert set(found.scales.tolist()) == {1.0, 2.0}
    pixels = found.keypoints / found.scales[:, None]
    np.testing.assert_allclose(pixels % 1, 0.5, atol=1e-5)
    best = extractor(image).scores.max()
    few = load_extractor(
        "r2d2", weights=str(weights), reliability=0.0, repeatability=0.0, max_keypoints=3
    )
    assert len(few(image)) == 3
    assert few(image).scores.max() == pytest.approx(best)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such weights file"):
        read_weights(tmp_path / "none.pt")
    entries = torch.load(random_weights(tmp_path / "r2d2.pt"), weights_only=True)
    del entries["state_dict"]["module.sal.bias"]
    torch.save(entries, tmp_path / "part.pt")
    with pytest.raises(WeightsError, match=r"no tensor 'sal.bias' of shape \(1,\)"):
        read_weights(tmp_path / "part.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="not in the layout of r2d2_WASF_N16"):
        read_weights(tmp_path / "list.pt")
