"""Modules that are imported when they are first used: torch takes longer to load than a run that
has nothing to do.

    if TYPE_CHECKING:
        import torch
    else:
        torch = lazily("torch")
"""

from __future__ import annotations

import importlib
from typing import Any


class _Lazy:
    """Stands for a module."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


def lazily(name: str) -> Any:
    """What stands for module ``name`` until one of its attributes is asked for, and after that."""
    return _Lazy(name)
