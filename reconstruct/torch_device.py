"""From the name of a device to a torch.device."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from reconstruct.errors import UsageError
from reconstruct.lazy import lazily

if TYPE_CHECKING:
    import torch
else:
    torch = lazily("torch")


def check_device(name: str) -> None:
    """Raises UsageError if a device that is named is absent; torch is not loaded for ``auto`` and
    ``cpu``, which are always there."""
    if name not in ("auto", "cpu"):
        resolve_device(name)


def resolve_device(name: str) -> torch.device:
    """The device called ``name``; ``auto`` is CUDA if there is a GPU, else the CPU.

    ``mps``, Apple's GPU, must be named.

    Raises UsageError if a named device is absent.
    """
    count = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if count else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
        raise UsageError(f"--device {name}: expected auto, cpu, cuda, cuda:N or mps")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        raise UsageError(f"--device {name}: torch sees {count} CUDA device(s); use cpu or auto")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: torch sees no Apple GPU; use cpu or auto")
    return device
