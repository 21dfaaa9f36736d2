"""Checkpoints: ``last`` holds all that training needs to continue, ``best`` is a weights file.

    last.safetensors   what learns, Adam's moments, and in the header (JSON) step, best, curves
    best.safetensors   the whole network, float16: usable as ``weights: OUT/best.safetensors``
    best.json          where it comes from: data, settings, commit, loss

Each is one file, renamed when complete: a run killed at any time leaves the previous one. (Not
written by safetensors' `save_file`, which leaves files that only their owner can read.)
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import nn

from reconstruct.atomic import atomic_path
from reconstruct.files import open_regular, parse_json

MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(slots=True)
class State:
    """The progress of training.

    Attributes:
        step: Number of updates done.
        best_loss: Smallest validation loss so far; None before the first validation.
        best_step: The step at which it was reached.
        rows: The curves so far, one entry per step.
        fingerprint: Of the data and settings that it belongs to.
    """

    fingerprint: str
    step: int = 0
    best_loss: float | None = None
    best_step: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)


def save_last(
    path: Path, network: nn.Module, optimizer: torch.optim.Optimizer, state: State
) -> None:
    """Write everything that decides the next step."""
    tensors = {name: _array(value) for name, value in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for moment, value in optimizer.state[parameter].items():
            tensors[f"adam.{moment}.{name}"] = _array(value)
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, {"state": json.dumps(asdict(state))}))


def read_state(path: Path) -> State | None:
    """The state in a checkpoint; None if it is missing or unreadable."""
    try:
        open_regular(path).close()
        with safe_open(path, "numpy") as file:
            return State(**parse_json(file.metadata()["state"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None  # unreadable counts as missing, as everywhere in the output folder


def restore(path: Path, network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load weights and Adam's moments from a checkpoint, bit by bit as they were."""
    with safe_open(path, "numpy") as file:
        tensors = {name: torch.from_numpy(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(tensors[name])
            moments = {m: tensors.get(f"adam.{m}.{name}") for m in MOMENTS}
            if moments["step"] is not None:
                # Moments share their parameter's layout in memory, on which rounding may depend.
                optimizer.state[parameter] = {
                    m: value if m == "step" else torch.empty_like(parameter).copy_(value)
                    for m, value in moments.items()
                    if value is not None
                }


def save_best(
    path: Path, tensors: Mapping[str, NDArray[np.float32]], provenance: Mapping[str, Any]
) -> None:
    """Write a network as a weights file, in float16, and its provenance beside it."""
    halved = {name: value.astype(np.float16) for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        header = {"provenance": json.dumps(provenance, sort_keys=True)}
        temporary.write_bytes(save(halved, header))
    with atomic_path(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(provenance, indent=1, sort_keys=True), encoding="utf-8")


def commit() -> str | None:
    """Commit of the package's checkout, with ``-dirty`` if files changed; None outside of a
    checkout."""
    describe = ("describe", "--always", "--dirty", "--abbrev=40")
    command = ["git", "-C", str(Path(__file__).parent), *describe]
    try:
        process = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip() or None


def _array(value: torch.Tensor) -> NDArray[Any]:
    return np.asarray(value.detach().cpu().contiguous().numpy())
