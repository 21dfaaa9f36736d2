"""LightGlue (Lindenberger et al., ICCV 2023) for one kind of features, as a `Learner`.

The network is kornia's, which `reconstruct.matching.lightglue` runs. It starts as nearest
neighbours among the descriptors' principal components, and learns from the crops that stage
``crops`` has described. With S the similarities of a layer's states, z and z' the logits that a
keypoint has a match at all, M the matches and A, A' the keypoints without one, a layer's loss is

    L = mean over (i, j) of M of  -log(softmax_j S_ij softmax_i S_ij s(z_i) s(z'_j))
        + mean over A of -log(1 - s(z)) / 2 + mean over A' of -log(1 - s(z')) / 2

with s the logistic function, and the loss of a pair the mean over all layers, so that each is of
use. Importing this module loads torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from reconstruct.errors import DataError
from reconstruct.matching.lightglue import make_network, need_library
from reconstruct.parallel import ahead
from reconstruct.training.checkpoint import save_best
from reconstruct.training.crop_features import Crops, Side
from reconstruct.training.draws import TRAIN, VALIDATION
from reconstruct.training.loop import order
from reconstruct.training.mates import ALONE

FEWEST = 16
"""Keypoints of a crop that is learned from."""
START_GROUPS = 16
"""Groups whose descriptors give the principal components."""
SHARPNESS = 15.0
"""Similarity of a typical keypoint to itself as training starts."""
STILL = 0.2
"""Factor for what the layers change as training starts, where states have variance 1."""
SMALLEST = 0.3
"""A crop counts as a part of a photo that is larger by up to the inverse of this."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """B pairs of crops with N keypoints each.

    Attributes:
        positions: Twice (B, N, 2), the middle of the photo at 0 and half its longest edge at 1.
        descriptors: Twice (B, N, D) unit vectors.
        pairs: Of each pair the numbers of the keypoints that match, twice (M,).
        alone: Twice (B, N) whether a keypoint has no match.
    """

    positions: tuple[Tensor, Tensor]
    descriptors: tuple[Tensor, Tensor]
    pairs: list[tuple[Tensor, Tensor]]
    alone: tuple[Tensor, Tensor]


class Matcher:
    """See `reconstruct.training.learner.Learner`. Raises MissingLibraryError without kornia."""

    def __init__(self, crops: Crops) -> None:
        need_library()  # before hours of stage `crops`
        self.crops = crops
        self.config = crops.source.config
        self.updates = self.config.train_matcher
        self.checks = self.config.validation

    def identity(self) -> list[Any]:
        """Data, extractor and settings."""
        settings = self.updates.identity(), self.checks.identity()
        return ["matcher", self.crops.source.fingerprint, *settings, self.config.seed]

    def network(self, device: torch.device) -> Any:
        """LightGlue as nearest neighbours. Raises DataError if there are too few keypoints."""
        train = self.updates
        count = min(START_GROUPS, train.groups)
        groups = (self.crops.read(TRAIN, number) for number in range(count))
        rows = np.concatenate([first.descriptors for pairs in groups for first, _ in pairs])
        if len(rows) < 2 * train.width:
            raise DataError(
                f"{len(rows)} keypoints in {count} groups of crops are too few to begin "
                "with; use larger crops (train_matcher.crop_px), or photos with more texture"
            )
        torch.manual_seed(self.config.seed)
        network = make_network(
            input_dim=rows.shape[1],
            descriptor_dim=train.width,
            num_heads=train.heads,
            n_layers=train.layers,
        )
        start_as_nearest(network, unit(rows))
        return network.train().to(device)

    def optimizer(self, network: nn.Module) -> torch.optim.Optimizer:
        """AdamW."""
        decay = {True: self.updates.weight_decay, False: 0.0}
        parameters = list(network.parameters())
        groups = [
            {"params": [p for p in parameters if (p.ndim > 1) == matrix], "weight_decay": value}
            for matrix, value in decay.items()
        ]
        return torch.optim.AdamW(groups, lr=1.0)

    def examples(self, first: int) -> Iterator[Batch]:
        """One random pair of each of `pairs` groups."""
        train, seed = self.updates, self.config.seed

        def read(step: int) -> Batch:
            epoch, place = divmod(step, train.steps_an_epoch)
            groups = order(seed, epoch, train.groups, fresh=False)
            rng = np.random.default_rng((seed, 3, step))
            drawn = []
            for group in groups[place * train.pairs : (place + 1) * train.pairs]:
                pairs = usable(self.crops.read(TRAIN, group))
                if pairs:
                    sides = pairs[int(rng.integers(len(pairs)))]
                    drawn.append(sides if rng.random() < 0.5 else sides[::-1])
            return self._batch(drawn, rng, vary=True)

        return ahead(read, range(first, train.steps), 1)

    def validation(self) -> Iterator[Batch]:
        """All pairs of each group that is not learned from. Raises DataError if none is usable."""
        found = False
        for number in range(self.checks.groups):
            rng = np.random.default_rng((self.config.seed, 4, number))
            pairs = usable(self.crops.read(VALIDATION, number))
            if pairs:
                found = True
                yield self._batch(pairs, rng, vary=False)
        if not found:
            raise DataError(
                f"validation: no match in {self.checks.groups} groups of crops; use more groups "
                "(validation.groups), or photos with more texture"
            )

    def loss(self, network: Any, example: Batch) -> Tensor:
        """Mean over layers and pairs."""
        device = next(network.parameters()).device
        half = self.updates.precision == "bfloat16"
        if not example.pairs:
            return sum(
                (p.sum() * 0.0 for p in network.parameters()), torch.zeros((), device=device)
            )
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            layers = assignments(network, example, device)
        return torch.stack([layer_loss(*layer, example) for layer in layers]).mean()

    def origin(self) -> dict[str, Any]:
        """Settings and data."""
        config = self.config.model_dump(mode="json")
        return {"config": config, "data": self.crops.source.fingerprint}

    def save(self, path: Path, network: nn.Module, origin: dict[str, Any]) -> None:
        """Write what `reconstruct.matching.lightglue` reads."""
        tensors = {
            name: value.detach().float().cpu().numpy()
            for name, value in network.named_parameters()
            if not name.startswith("token_confidence")  # of early stopping, which is off
        }
        save_best(path, tensors, origin)

    def _batch(
        self, pairs: Sequence[tuple[Side, Side]], rng: np.random.Generator, *, vary: bool
    ) -> Batch:
        fewest = min((len(side.mates) for pair in pairs for side in pair), default=0)
        count = min(fewest, self.updates.max_keypoints)
        half = self.updates.crop_px / 2
        places: list[list[Any]] = [[], []]
        rows: list[list[Any]] = [[], []]
        alone: list[list[Any]] = [[], []]
        matched = []
        for pair in pairs:
            chosen = draw_keypoints(pair, count, rng)
            matched.append(matches_of(pair, chosen))
            factor = rng.uniform(SMALLEST, 1.0) if vary else 1.0
            for image, (side, numbers) in enumerate(zip(pair, chosen, strict=True)):
                shift = rng.uniform(factor - 1.0, 1.0 - factor, 2)
                places[image].append((side.keypoints[numbers] / half - 1.0) * factor + shift)
                rows[image].append(unit(side.descriptors[numbers]))
                alone[image].append(side.mates[numbers] == ALONE)
        return Batch(_both(places), _both(rows), matched, _both(alone))


def usable(pairs: Sequence[tuple[Side, Side]]) -> list[tuple[Side, Side]]:
    """The pairs with keypoints, and matches."""
    return [
        pair
        for pair in pairs
        if min(len(side.mates) for side in pair) >= FEWEST and (pair[0].mates >= 0).any()
    ]


def unit(descriptors: NDArray[Any]) -> NDArray[np.float32]:
    """(N, D) descriptors of length 1."""
    rows = descriptors.astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(min=1e-12))


def draw_keypoints(
    pair: tuple[Side, Side], count: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of ``count`` keypoints of each crop, in random order: any of the first; of the second
    those that match them, and any others."""
    first = rng.permutation(len(pair[0].mates))[:count]
    wanted = pair[0].mates[first]
    wanted = wanted[wanted >= 0]
    others = rng.permutation(np.setdiff1d(np.arange(len(pair[1].mates)), wanted))
    second = rng.permutation(np.concatenate([wanted, others])[:count])
    return first, second


def matches_of(
    pair: tuple[Side, Side], chosen: tuple[NDArray[np.int64], NDArray[np.int64]]
) -> tuple[Tensor, Tensor]:
    """The matches among chosen keypoints, by their numbers among these: twice (M,)."""
    place = np.full(len(pair[1].mates), -1)
    place[chosen[1]] = np.arange(len(chosen[1]))
    wanted = pair[0].mates[chosen[0]]
    found = np.where(wanted >= 0, place[wanted.clip(min=0)], -1)
    first = np.flatnonzero(found >= 0)
    return torch.from_numpy(first), torch.from_numpy(found[first])


def start_as_nearest(network: Any, descriptors: NDArray[np.float32]) -> None:
    """Make LightGlue compare the first principal components of (N, D) unit descriptors; all of them
    as they are where a keypoint's state is as long."""
    width = int(network.conf.descriptor_dim)
    length = 1.0  # squared, of a typical state
    with torch.no_grad():
        if descriptors.shape[1] > width:
            length = float(width)  # states have variance 1
            mean = descriptors.mean(0)
            values, vectors = np.linalg.eigh(np.cov(descriptors.T))
            scale = math.sqrt(length / values[-width:].sum())
            components = scale * vectors[:, ::-1][:, :width].T
            network.input_proj.weight.copy_(torch.from_numpy(components.copy()))
            network.input_proj.bias.copy_(torch.from_numpy(-components @ mean))
        for layer in network.transformers:
            for block in (layer.self_attn, layer.cross_attn):
                block.ffn[-1].weight.mul_(STILL * math.sqrt(length / width))
                block.ffn[-1].bias.zero_()
        for assignment in network.log_assignment:
            # S_ii = t^2 length / sqrt(width)
            t = math.sqrt(SHARPNESS * math.sqrt(width) / length)
            assignment.final_proj.weight.copy_(t * torch.eye(width))
            assignment.final_proj.bias.zero_()


def assignments(
    network: Any, batch: Batch, device: torch.device
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """What each layer says of a batch.

    Returns:
        For each layer (B, N, N) similarities of the keypoints of the two crops, (B, N) logits that
        a keypoint of the first has a match, and (B, N) that one of the second has.
    """
    first, second = (network.input_proj(d.to(device)) for d in batch.descriptors)
    turns = [network.posenc(p.to(device)) for p in batch.positions]
    result = []
    for layer, assignment in zip(network.transformers, network.log_assignment, strict=True):
        first, second = layer(first, second, *turns)
        divisor = first.shape[-1] ** 0.25
        a, b = (assignment.final_proj(x) / divisor for x in (first, second))
        logits = [assignment.matchability(x)[..., 0].float() for x in (first, second)]
        result.append(((a @ b.transpose(1, 2)).float(), *logits))
    return result


def layer_loss(
    similarity: Tensor, first_logits: Tensor, second_logits: Tensor, batch: Batch
) -> Tensor:
    """The loss of a layer, see the module."""
    device = similarity.device
    counts = torch.tensor([len(first) for first, _ in batch.pairs])
    which = torch.repeat_interleave(torch.arange(len(counts)), counts).to(device)
    i, j = (torch.cat(part).to(device) for part in zip(*batch.pairs, strict=True))
    rows, columns = (torch.logsumexp(similarity, dim) for dim in (2, 1))
    cost = rows[which, i] + columns[which, j] - 2.0 * similarity[which, i, j]
    cost = cost + F.softplus(-first_logits)[which, i] + F.softplus(-second_logits)[which, j]
    loss = cost.sum() / max(1, len(i))
    for logits, alone in zip((first_logits, second_logits), batch.alone, strict=True):
        there = alone.to(device)
        without = torch.where(there, F.softplus(logits), torch.zeros_like(logits)).sum()
        loss = loss + 0.5 * without / there.sum().clamp(min=1)
    return loss


def _both(values: list[list[Any]]) -> tuple[Tensor, Tensor]:
    """Two lists of arrays of one shape, each stacked."""
    first, second = (np.stack(v) if v else np.zeros((0, 0, 0)) for v in values)
    kinds = (x.astype(np.float32) if x.dtype != np.bool_ else x for x in (first, second))
    a, b = (torch.from_numpy(x) for x in kinds)
    return a, b
