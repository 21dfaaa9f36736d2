"""Layouts, their preprocessing, and what a wrong file is told."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures import blob_weights
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from reconstruct.errors import WeightsError
from reconstruct.features.weights import (
    CAFFE,
    CONVOLUTIONS,
    TORCHVISION,
    TrunkWeights,
    load_weights,
    read_weights,
)


@pytest.fixture(scope="module")
def weights() -> TrunkWeights:
    return blob_weights()


def _renamed(weights: TrunkWeights, prefix: str) -> dict[str, Any]:
    return {
        f"{prefix}{index}.{kind}": torch.from_numpy(weights.tensors[f"{name}.{kind}"])
        for name, (_, _, index) in CONVOLUTIONS.items()
        for kind in ("weight", "bias")
    }


def test_the_embedded_weights_load() -> None:
    weights = load_weights("vgg16")
    assert weights.tensors["conv4_3.weight"].shape == (512, 512, 3, 3)
    assert weights.tensors["conv1_1.bias"].dtype == np.float32
    assert weights.preprocessing == CAFFE


def test_the_fine_tuned_weights_share_the_trunk() -> None:
    start, tuned = load_weights("vgg16"), load_weights("d2_homography")
    differing = [
        name
        for name in start.tensors
        if not np.array_equal(start.tensors[name], tuned.tensors[name])
    ]
    assert differing == ["conv4_3.weight", "conv4_3.bias"]
    assert tuned.preprocessing == CAFFE
    assert tuned.content_hash() != start.content_hash()


def test_every_layout_is_the_same_network(weights: TrunkWeights, tmp_path: Path) -> None:
    release = _renamed(weights, "dense_feature_extraction.model.")
    torch.save({"model": release}, tmp_path / "release.pth")
    torch.save(release, tmp_path / "bare.pt")
    save_file(dict(weights.tensors), tmp_path / "ours.safetensors")
    save_file({k: v.numpy() for k, v in release.items()}, tmp_path / "release.safetensors")
    for path in sorted(tmp_path.iterdir()):
        assert read_weights(path).content_hash() == weights.content_hash(), path.name


def test_torchvision_brings_its_own_preprocessing(weights: TrunkWeights, tmp_path: Path) -> None:
    rest = {"classifier.0.weight": torch.zeros(4, 4), "features.24.bias": torch.zeros(512)}
    torch.save(_renamed(weights, "features.") | rest, tmp_path / "vgg16.pth")
    read = load_weights(str(tmp_path / "vgg16.pth"))
    assert read.preprocessing == TORCHVISION
    assert read.content_hash() != weights.content_hash()
    np.testing.assert_array_equal(read.tensors["conv3_1.weight"], weights.tensors["conv3_1.weight"])


def test_half_precision_storage_has_the_same_hash(weights: TrunkWeights, tmp_path: Path) -> None:
    save_file(
        {k: v.astype(np.float16) for k, v in weights.tensors.items()}, tmp_path / "h.safetensors"
    )
    assert read_weights(tmp_path / "h.safetensors").content_hash() == weights.content_hash()


def test_a_training_checkpoint_says_how_to_convert_it(
    weights: TrunkWeights, tmp_path: Path
) -> None:
    model = _renamed(weights, "dense_feature_extraction.model.")
    torch.save({"model": model, "args": argparse.Namespace(lr=1e-3)}, tmp_path / "train.pth")
    with pytest.raises(WeightsError, match=r"Namespace.*torch\.save\(\{'model'"):
        read_weights(tmp_path / "train.pth")


class _Harmful:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (pytest.fail, ("unpickled an object",))


def _write_harmful(path: Path) -> None:
    torch.save({"model": _Harmful()}, path)


def _write_truncated(path: Path) -> None:
    torch.save({"model": {"a": torch.zeros(1000)}}, path)
    path.write_bytes(path.read_bytes()[:600])


def _write_other_network(path: Path) -> None:
    torch.save({"model": {"backbone.conv.weight": torch.zeros(3)}}, path)


def _write_wrong_shape(path: Path) -> None:
    save_file({"conv1_1.weight": np.zeros((64, 3, 5, 5), np.float32)}, path)


def test_bfloat16_is_read(weights: TrunkWeights, tmp_path: Path) -> None:
    tensors = {k: torch.from_numpy(v).bfloat16() for k, v in weights.tensors.items()}
    save_torch(tensors, tmp_path / "b.safetensors")
    found = read_weights(tmp_path / "b.safetensors").tensors["conv3_1.weight"]
    np.testing.assert_array_equal(found, tensors["conv3_1.weight"].float().numpy())


def _write_tensor(tensor: torch.Tensor) -> Any:
    return lambda path: torch.save({"conv1_1.weight": tensor}, path)


_FIRST = (64, 3, 3, 3)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.pth", _write_harmful, "more than tensors"),
        ("a.pth", _write_truncated, "a.pth"),
        ("a.pth", lambda path: path.write_bytes(b""), "a.pth"),
        ("a.pth", lambda path: path.write_bytes(b"<html>"), "a.pth"),
        ("a.pth", lambda path: torch.save([1, 2], path), "expected a dict"),
        ("a.pth", _write_other_network, "no entry 'conv1_1.weight'.*backbone"),
        ("a.pth", _write_tensor(torch.zeros(_FIRST).to_sparse()), "is no plain tensor"),
        ("a.pth", _write_tensor(torch.zeros(_FIRST, device="meta")), "is no plain tensor"),
        ("a.pth", _write_tensor(torch.zeros(_FIRST, dtype=torch.complex64)), "is no plain tensor"),
        ("a.pth", _write_tensor(torch.zeros(1).expand(10**12)), "has shape"),
        ("a.safetensors", _write_wrong_shape, r"shape \(64, 3, 5, 5\), expected \(64, 3, 3, 3\)"),
        ("a.safetensors", lambda path: path.write_bytes(b"{}"), "not a readable safetensors"),
        ("a.bin", lambda path: path.write_bytes(b"x"), "expected a name that ends in"),
        ("absent.pth", lambda path: None, "no such weights file.*vgg16"),
    ],
)
def test_a_wrong_file_is_an_error_that_names_it(
    name: str, write: Any, message: str, tmp_path: Path
) -> None:
    write(tmp_path / name)
    with pytest.raises(WeightsError, match=message):
        read_weights(tmp_path / name)


def test_values_that_are_not_finite_are_refused(weights: TrunkWeights, tmp_path: Path) -> None:
    tensors = dict(weights.tensors)
    tensors["conv2_1.bias"] = np.full(128, np.nan, np.float32)
    save_file(tensors, tmp_path / "nan.safetensors")
    with pytest.raises(WeightsError, match=r"conv2_1\.bias.*not finite"):
        read_weights(tmp_path / "nan.safetensors")
