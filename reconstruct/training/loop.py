"""The training loop: one group, one step. Nothing random happens here, so a run that continues from
a checkpoint makes the same steps as one that was never stopped.

Importing this module loads torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from reconstruct.training.layout import LAYOUTS
from reconstruct.training.loss import describe, pair_loss
from reconstruct.training.maps import Example
from reconstruct.training.settings import TrainConfig


def make_optimizer(head: nn.Module) -> torch.optim.Adam:
    """Adam; the learning rate is set before every step."""
    return torch.optim.Adam(head.parameters(), lr=1.0)


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


def take_step(
    head: nn.Module,
    optimizer: torch.optim.Optimizer,
    example: Example,
    config: TrainConfig,
    step: int,
) -> dict[str, float]:
    """Update the weights once. A gradient that is not finite is skipped.

    Args:
        head: conv4_3.
        optimizer: Its optimizer.
        example: The group after the frozen trunk.
        config: Settings.
        step: Number of the step, which decides the learning rate.

    Returns:
        The step's entry in the curves.
    """
    rate = config.rate(step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss = group_loss(head, example, config)
    loss.backward()  # type: ignore[no-untyped-call]
    limit = math.inf if config.max_gradient_norm is None else config.max_gradient_norm
    norm = nn.utils.clip_grad_norm_(head.parameters(), limit)
    if torch.isfinite(norm):
        optimizer.step()
    return {
        "step": step + 1,
        "rate": rate,
        "loss": float(loss.detach()),
        "gradient_norm": float(norm),
        "pairs": len(example.pairs),
    }


@torch.inference_mode()
def validate(head: nn.Module, examples: Iterable[Example], config: TrainConfig) -> float:
    """Mean loss over the groups."""
    return float(np.mean([float(group_loss(head, example, config)) for example in examples]))


def order(seed: int, epoch: int, groups: int, fresh: bool) -> list[int]:
    """Numbers of the groups of an epoch.

    Args:
        seed: Seed of the run.
        epoch: Number of the epoch.
        groups: Groups per epoch.
        fresh: New groups in every epoch; else the same ones in another order.
    """
    if fresh:
        return list(range(epoch * groups, (epoch + 1) * groups))
    return [int(i) for i in np.random.default_rng((seed, 2, epoch)).permutation(groups)]


def steps(seed: int, config: TrainConfig, first: int) -> Iterator[int]:
    """Numbers of the groups from step ``first`` to the end of training."""
    for epoch in range(first // config.groups, config.epochs):
        numbers = order(seed, epoch, config.groups, fresh=not config.keep_maps)
        yield from numbers[first % config.groups if epoch == first // config.groups else 0 :]
