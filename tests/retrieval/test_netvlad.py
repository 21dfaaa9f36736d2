"""NetVLAD from a .mat file: a tiny network in the public layout, against a literal version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch

from reconstruct.errors import WeightsError
from reconstruct.features import load_extractor
from reconstruct.retrieval.describers import create_describer
from reconstruct.retrieval.netvlad import NetVlad, NetVladConfig, load_netvlad

CHANNELS, WORDS, LENGTH = 4, 3, 5


def _cell(*items: Any) -> np.ndarray:
    cell = np.empty(len(items), object)
    cell[:] = items
    return cell


def _write(path: Path, **changes: Any) -> Path:
    rng = np.random.default_rng(0)

    def values(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.4, shape).astype(np.float32)

    layers: list[dict[str, Any]] = []
    for number in range(13):
        weights = values(3, 3, 3 if number == 0 else CHANNELS, CHANNELS), values(CHANNELS, 1)
        layers += [{"type": "conv", "weights": _cell(*weights)}, {"type": "relu", "weights": []}]
    layers.append(
        {"type": "vlad", "weights": _cell(values(CHANNELS, WORDS), values(CHANNELS, WORDS))}
    )
    whitening = values(1, 1, CHANNELS * WORDS, LENGTH), values(LENGTH, 1)
    layers.append({"type": "conv", "weights": _cell(*whitening)})
    mean = np.broadcast_to(np.float32([120, 110, 100]), (2, 2, 3))
    net = {"layers": _cell(*layers), "meta": {"normalization": {"averageImage": mean}}}
    scipy.io.savemat(path, {"net": net} | changes)
    return path


def _literal(path: Path, image: np.ndarray) -> np.ndarray:
    net = scipy.io.loadmat(path, struct_as_record=False, squeeze_me=True)["net"]
    x = torch.from_numpy(image.astype(np.float32) - [120, 110, 100]).float().permute(2, 0, 1)[None]
    convolutions = [layer for layer in net.layers if layer.type == "conv"]
    for number, layer in enumerate(convolutions[:13]):
        kernel, bias = (torch.from_numpy(np.asarray(w)) for w in layer.weights)
        x = torch.conv2d(x, kernel.permute(3, 2, 0, 1), bias, padding=1)
        x = x if number == 12 else x.relu()
        x = torch.max_pool2d(x, 2) if number in (1, 3, 6, 9) else x
    assignment, centers = next(layer for layer in net.layers if layer.type == "vlad").weights
    cells = x[0].flatten(1).T.numpy()
    sums = np.zeros((CHANNELS, WORDS))
    for cell in cells:
        cell = cell / np.linalg.norm(cell)
        share = np.exp(assignment.T @ cell)
        share /= share.sum()
        for k in range(WORDS):
            sums[:, k] += share[k] * (cell + centers[:, k])  # the file holds minus the centres
    sums /= np.linalg.norm(sums, axis=0)
    vector = sums.reshape(-1) / np.linalg.norm(sums)
    matrix, offset = convolutions[13].weights
    whitened = vector @ matrix + offset
    return whitened / np.linalg.norm(whitened)


def test_like_the_literal_version(tmp_path: Path) -> None:
    path = _write(tmp_path / "net.mat")
    image = np.random.default_rng(1).integers(0, 255, (48, 64, 3), np.uint8)
    network = NetVlad(NetVladConfig(path=str(path)), "cpu")
    rows = network.rows(network.prepare(image))
    np.testing.assert_allclose(rows[0], _literal(path, image), atol=1e-5)
    small = network.prepare(np.zeros((8, 50, 3), np.uint8))
    np.testing.assert_array_equal(network.rows(small), np.zeros((1, LENGTH)))


def test_weights_go_to_the_device_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = NetVlad(NetVladConfig(path=str(_write(tmp_path / "net.mat"))), "cpu")
    image = np.zeros((16, 16, 3), np.uint8)
    first = network.rows(image)
    handed_over = []

    def from_numpy(array: np.ndarray) -> torch.Tensor:
        handed_over.append(array.shape)
        return torch.as_tensor(array)

    monkeypatch.setattr(torch, "from_numpy", from_numpy)
    np.testing.assert_array_equal(network.rows(image), first)
    assert handed_over == [image.shape], "the whitening alone has 537 MB in the public file"


def test_the_whitening_needs_no_copy(tmp_path: Path) -> None:
    weights = load_netvlad(_write(tmp_path / "net.mat"))
    for array in (weights.assignment, weights.centers, weights.whitening[0]):
        assert array.flags.c_contiguous


def test_beside_a_local_extractor(tmp_path: Path) -> None:
    config = NetVladConfig(path=str(_write(tmp_path / "net.mat")), max_edge=32)
    sift = load_extractor("sift")
    describer = create_describer(config, sift, "cpu")
    image = np.zeros((48, 64, 3), np.uint8)
    assert describer.prepare(image).shape == (24, 32, 3)
    _, rows = describer.extract([sift.prepare(image)], [describer.prepare(image)])
    assert rows[0].shape == (1, LENGTH)


def test_what_is_no_such_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no such file"):
        NetVlad(NetVladConfig(path=str(tmp_path / "absent.mat")), "cpu").identity()
    with pytest.raises(WeightsError, match="no such file"):
        load_netvlad(tmp_path / "absent.mat")
    (tmp_path / "text.mat").write_text("not MATLAB")
    with pytest.raises(WeightsError, match=r"not the \.mat file"):
        load_netvlad(tmp_path / "text.mat")
    with pytest.raises(WeightsError, match=r"not the \.mat file"):
        load_netvlad(_write(tmp_path / "other.mat", net={"layers": 3}))


def test_a_file_of_matlabs_newer_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v73.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    with pytest.raises(WeightsError, match=r"not the \.mat file"):
        load_netvlad(tmp_path / "v73.mat")
