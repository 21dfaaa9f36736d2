"""What is trained: a network, what it learns from, and the weights that come of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from reconstruct.training.settings import UpdatesConfig, ValidationConfig


class Example(Protocol):
    """What one step learns from."""

    @property
    def pairs(self) -> list[Any]:
        """Its pairs of images."""


class Learner(Protocol):
    """All that stage ``train`` knows of what learns. The same settings give the same examples, with
    whichever step training goes on."""

    @property
    def updates(self) -> UpdatesConfig:
        """How the weights are updated."""

    @property
    def checks(self) -> ValidationConfig:
        """How often, and with how much, the network is validated."""

    def identity(self) -> list[Any]:
        """What decides the result: settings, data, the weights to start from; JSON types."""

    def network(self, device: torch.device) -> nn.Module:
        """The network as training starts."""

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """Its optimizer; the learning rate is set before every step."""

    def examples(self, first: int) -> Iterator[Any]:
        """What the steps from number ``first`` to the end learn from."""

    def validation(self) -> Iterator[Any]:
        """What is not learned from."""

    def loss(self, network: Any, example: Any) -> Tensor:
        """A scalar."""

    def origin(self) -> dict[str, Any]:
        """Where the weights come from, as JSON types."""

    def save(self, path: Path, network: Any, origin: dict[str, Any]) -> None:
        """Write a weights file that the rest of the package reads, and ``origin`` beside it."""
