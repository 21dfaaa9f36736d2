"""D2-Net's last convolution, conv4_3, behind a trunk that is frozen, as a `Learner`.

Importing this module loads torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reconstruct.parallel import ahead
from reconstruct.training.checkpoint import save_best
from reconstruct.training.data.layout import LAYOUTS
from reconstruct.training.draws import TRAIN, VALIDATION
from reconstruct.training.loading import fresh_examples
from reconstruct.training.loop import steps
from reconstruct.training.loss import describe, pair_loss
from reconstruct.training.maps import Example, GroupSource, Maps
from reconstruct.training.network import head_tensors, make_head
from reconstruct.training.settings import TrainConfig


class Head:
    """See `reconstruct.training.learner.Learner`.

    Args:
        source: The groups.
        maps: The trunk's output for them; None where the trunk runs with every step.
    """

    def __init__(self, source: GroupSource, maps: Maps | None) -> None:
        self.source = source
        self.maps = maps
        self.updates = source.config.train
        self.checks = source.config.validation

    def identity(self) -> list[Any]:
        """Data, settings, and the weights to start from."""
        start = self.source.weights.content_hash()  # of which the maps only know the trunk
        settings = self.updates.identity(), self.checks.identity()
        return [self.source.fingerprint, *settings, self.source.config.seed, start]

    def network(self, device: torch.device) -> nn.Conv2d:
        """conv4_3 without its ReLU."""
        return make_head(self.source.weights.tensors, self.updates.layout, device)

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(network.parameters(), lr=1.0)

    def examples(self, first: int) -> Iterator[Example]:
        """Groups after the trunk."""
        train, maps = self.updates, self.maps
        numbers = steps(
            self.source.config.seed, train.epochs, train.groups, first, fresh=maps is None
        )
        if maps is None:
            return fresh_examples(self.source, numbers, train.workers)
        return ahead(lambda number: maps.read(TRAIN, number), numbers, 1)

    def validation(self) -> Iterator[Example]:
        """Groups after the trunk, drawn once."""
        for number in range(self.checks.groups):
            if self.maps is not None:
                yield self.maps.read(VALIDATION, number)
            else:
                yield self.source.example(self.source.draws.draw(VALIDATION, number))

    def loss(self, network: nn.Module, example: Example) -> Tensor:
        """Mean over the pairs of a group."""
        return group_loss(network, example, self.updates)

    def origin(self) -> dict[str, Any]:
        """Settings, data, and the weights before."""
        return {
            "config": self.source.config.model_dump(mode="json"),
            "data": self.source.fingerprint,
            "starts_from": self.source.weights.content_hash(),
        }

    def save(self, path: Path, network: nn.Conv2d, origin: dict[str, Any]) -> None:
        """Write the whole network."""
        save_best(path, {**self.source.weights.tensors, **head_tensors(network)}, origin)


def group_loss(head: nn.Module, example: Example, config: TrainConfig) -> Tensor:
    """Mean loss over the pairs of a group, a scalar."""
    device = next(head.parameters()).device
    half = config.precision == "bfloat16"
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        maps = head(example.maps.to(device))
    images = describe(maps, LAYOUTS[config.layout].relu_descriptors)
    losses = [
        pair_loss(
            images[first],
            images[second],
            cells.to(device),
            safe_radius=config.safe_radius,
            margin=config.margin,
        )
        for first, second, cells in example.pairs
    ]
    return torch.stack(losses).mean()
