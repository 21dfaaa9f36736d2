from __future__ import annotations

import pytest
import torch

from reconstruct.errors import UsageError
from reconstruct.torch_device import resolve_device


def test_an_apple_gpu_is_used_where_it_is_named_and_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto").type == "cpu"
    assert resolve_device("mps").type == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match="mps: torch sees no Apple GPU"):
        resolve_device("mps")
