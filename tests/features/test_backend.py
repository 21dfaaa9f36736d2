"""Both backends compute the trunk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reconstruct.errors import ConfigError
from reconstruct.features.backend import choose_backend, make_network
from reconstruct.features.vgg import MIN_EDGE_PX, build_trunk, map_size
from reconstruct.features.weights import load_weights

CPU = torch.device("cpu")


@pytest.mark.parametrize("use_relu", [True, False])
def test_backends_agree_with_the_plain_trunk_at_any_size(use_relu: bool) -> None:
    tensors = load_weights("vgg16").tensors
    networks = [
        make_network(b, tensors, use_relu=use_relu, device=CPU) for b in ("torch", "onnxruntime")
    ]
    trunk = build_trunk(tensors, use_relu)
    for shape in ((1, 3, 61, 90), (2, 3, 48, 40), (1, 3, MIN_EDGE_PX, MIN_EDGE_PX)):
        images = 60 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
        expected = trunk(images)
        assert expected.shape == (shape[0], 512, *map_size(*shape[2:]))
        assert bool((expected < 0).any()) == (not use_relu)
        for network in networks:
            maps = network(images)
            torch.testing.assert_close(maps, expected, rtol=1e-3, atol=1e-5 * float(expected.max()))
            maps += 1  # the caller may change them


def test_choice() -> None:
    cuda = torch.device("cuda")
    assert choose_backend("auto", CPU) == "onnxruntime"
    assert choose_backend("auto", cuda) == "torch"
    assert choose_backend("torch", CPU) == "torch"
    with pytest.raises(ConfigError, match="runs on a CPU here, not on cuda"):
        choose_backend("onnxruntime", cuda)


def test_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert choose_backend("auto", CPU) == "torch"
    with pytest.raises(ConfigError, match="not installed"):
        choose_backend("onnxruntime", CPU)


def test_onnxruntime_tells_nobody_what_it_runs(tmp_path: Path) -> None:
    """It would keep a number of this machine, and what it is going to tell, in the user's cache."""
    quiet = ("ORT_DISABLE_TELEMETRY", "CI", "GITHUB_ACTIONS", "XDG_CACHE_HOME")
    env = {name: value for name, value in os.environ.items() if name not in quiet}
    program = "import reconstruct, onnxruntime; onnxruntime.SessionOptions()"
    subprocess.run([sys.executable, "-c", program], env={**env, "HOME": str(tmp_path)}, check=True)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
