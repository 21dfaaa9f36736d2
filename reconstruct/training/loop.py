"""The training loop: one example, one step. Nothing random happens here, so a run that continues
from a checkpoint makes the same steps as one that was never stopped.

Importing this module loads torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from reconstruct.training.learner import Example, Learner


def take_step(
    learner: Learner,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    example: Example,
    step: int,
) -> dict[str, float]:
    """Update the weights once. A gradient that is not finite is skipped.

    Args:
        learner: What learns.
        network: Its network.
        optimizer: Its optimizer.
        example: What it learns from.
        step: Number of the step, which decides the learning rate.

    Returns:
        The step's entry in the curves.
    """
    rate = learner.updates.rate(step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss = learner.loss(network, example)
    loss.backward()  # type: ignore[no-untyped-call]
    longest = learner.updates.max_gradient_norm
    limit = math.inf if longest is None else longest
    norm = nn.utils.clip_grad_norm_(network.parameters(), limit)
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
def validate(learner: Learner, network: nn.Module) -> float:
    """Mean loss over what is not learned from."""
    return float(np.mean([float(learner.loss(network, e)) for e in learner.validation()]))


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


def steps(seed: int, epochs: int, groups: int, first: int, *, fresh: bool) -> Iterator[int]:
    """Numbers of the groups from the ``first`` one to the end of training; see `order`."""
    for epoch in range(first // groups, epochs):
        numbers = order(seed, epoch, groups, fresh)
        yield from numbers[first % groups if epoch == first // groups else 0 :]
