"""The name of a device -> torch.device."""

from __future__ import annotations

import torch

from reconstruct.errors import UsageError


def resolve_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one. Raises UsageError if a named device is absent."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name}: expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: torch sees no CUDA device; use cpu or auto")
    return device
