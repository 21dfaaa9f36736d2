from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from reconstruct.training.head import Head, group_loss
from reconstruct.training.loop import take_step
from reconstruct.training.loss import describe, pair_loss, soft_scores
from reconstruct.training.maps import Example, GroupSource
from reconstruct.training.settings import TrainConfig, TrainingConfig, ValidationConfig


def random_maps(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def number(value: Tensor) -> float:
    return float(value.detach())


def literal_scores(maps: Tensor) -> list[list[Tensor]]:
    """Equations of `reconstruct.training.loss` for one (C, h, w) map, cell by cell."""
    channels, height, width = maps.shape
    g = F.relu(maps)
    largest = g.max()
    raw = []
    for i in range(height):
        for j in range(width):
            best = None
            for k in range(channels):
                window = maps.new_zeros(())
                for y in (i - 1, i, i + 1):
                    for x in (j - 1, j, j + 1):
                        inside = 0 <= y < height and 0 <= x < width
                        window = window + (torch.exp(g[k, y, x] / largest) if inside else 1.0)
                alpha = torch.exp(g[k, i, j] / largest) / window
                value = alpha * g[k, i, j] / g[:, i, j].max()
                best = value if best is None or value > best else best
            raw.append(best)
    total = sum(raw)
    return [[raw[i * width + j] / total for j in range(width)] for i in range(height)]


def literal_loss(first: Tensor, second: Tensor, cells: list[tuple[int, int]], relu: bool) -> Tensor:
    """The loss of a pair of (C, h, w) maps with loops over everything, safe radius 4, margin 1."""
    width = first.shape[2]
    scores = literal_scores(first), literal_scores(second)
    maps = [F.relu(m) if relu else m for m in (first, second)]

    def descriptor(image: int, cell: int) -> Tensor:
        vector = maps[image][:, cell // width, cell % width]
        return vector / vector.norm()

    def hardest(anchor: Tensor, image: int, near: int) -> Tensor:
        found = []
        for cell in range(maps[image][0].numel()):
            rows, columns = abs(cell // width - near // width), abs(cell % width - near % width)
            if max(rows, columns) > 4:
                found.append(2 - 2 * anchor @ descriptor(image, cell))
        return min(found, key=number)

    cost = weights = 0.0
    for a, b in cells:
        d1, d2 = descriptor(0, a), descriptor(1, b)
        p = 2 - 2 * d1 @ d2
        n = min(hardest(d1, 1, b), hardest(d2, 0, a), key=number)
        weight = scores[0][a // width][a % width] * scores[1][b // width][b % width]
        cost = cost + weight * torch.clamp(1 + p - n, min=0)
        weights = weights + weight
    return cost / weights


@pytest.mark.parametrize("relu", [False, True])
def test_loss_and_gradient_are_those_of_the_literal_version(relu: bool) -> None:
    cells = [(0, 9), (8, 8), (23, 1), (23, 2)]
    maps = random_maps(2, 12, 3, 8).requires_grad_()
    first, second = describe_in_double(maps, relu)
    fast = pair_loss(first, second, torch.tensor(cells))
    slow = literal_loss(maps[0], maps[1], cells, relu)
    assert float(fast.detach()) == pytest.approx(float(slow.detach()), rel=1e-12)
    fast_gradient, slow_gradient = (torch.autograd.grad(loss, maps)[0] for loss in (fast, slow))
    assert slow_gradient.abs().max() > 1e-3
    torch.testing.assert_close(fast_gradient, slow_gradient, rtol=1e-9, atol=1e-12)


def describe_in_double(maps: Tensor, relu: bool) -> list:
    described = describe(maps, relu)
    assert described[0].descriptors.dtype == torch.float64
    return described


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    cells = torch.tensor([(0, 13), (8, 8), (35, 40), (62, 1)])

    def loss(maps: Tensor) -> Tensor:
        return pair_loss(*describe(maps, False), cells)

    assert torch.autograd.gradcheck(loss, random_maps(2, 3, 7, 9, seed=1).requires_grad_())


def test_scores_by_hand() -> None:
    # One channel, 1 x 2 cells, values 2 and 1: M = 2, beta = 1. Around each cell lie seven cells
    # of padding that count 1, and both cells.
    first, second = math.exp(1.0), math.exp(0.5)
    raw = [value / (7 + first + second) for value in (first, second)]
    scores = soft_scores(torch.tensor([[[[2.0, 1.0]]]], dtype=torch.float64))
    assert scores.flatten().tolist() == pytest.approx([value / sum(raw) for value in raw])


@pytest.mark.parametrize("relu", [False, True])
def test_featureless_maps_cost_no_nan(relu: bool) -> None:
    maps = torch.zeros(2, 4, 8, 8, requires_grad=True)
    loss = pair_loss(*describe(maps, relu), torch.tensor([(0, 0), (9, 9)]))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert maps.grad is not None
    assert torch.isfinite(maps.grad).all()


def test_one_dark_cell_and_one_dark_image_leave_finite_gradients() -> None:
    maps = random_maps(2, 4, 8, 8).float()
    maps[0, :, 3, 3] = 0.0
    maps[1] = -1.0
    maps.requires_grad_()
    loss = pair_loss(*describe(maps, True), torch.tensor([(27, 27), (0, 1)]))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(maps.grad).all()


def test_a_map_without_negatives_costs_nothing() -> None:
    maps = random_maps(2, 4, 5, 5).requires_grad_()
    loss = pair_loss(*describe(maps, False), torch.tensor([(0, 0), (12, 12)]))
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert torch.isfinite(maps.grad).all()


@pytest.mark.parametrize("layout", ["release", "test_time"])
def test_one_group_is_learnt_by_heart(layout: str) -> None:
    config = TrainConfig(layout=layout, learning_rate=3e-3, warmup=0, schedule="constant")
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    head = nn.Conv2d(16, 32, 3, padding=1)
    maps = torch.randn(2, 16, 12, 12, generator=generator)
    cells = torch.stack([torch.arange(144), torch.randperm(144, generator=generator)], dim=1)
    example = Example(maps, [(0, 1, cells)])
    before = float(group_loss(head, example, config).detach())
    validation = ValidationConfig()
    file = TrainingConfig.model_construct(train=config, validation=validation)
    learner = Head(GroupSource(file, "cpu"), None)
    optimizer = learner.optimizer(head)
    for step in range(150):
        take_step(learner, head, optimizer, example, step)
    after = float(group_loss(head, example, config).detach())
    assert before > 0.9
    assert after < 0.05
