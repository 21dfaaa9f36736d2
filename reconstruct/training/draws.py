"""The groups of a training file by role and number: the same ones in every process."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from reconstruct.training.data.groups import Group, Shape, TrainingSet, draw_group
from reconstruct.training.data.mix import DataConfig, load_source
from reconstruct.training.settings import ValidationConfig

TRAIN, VALIDATION = "train", "validation"
STREAMS = {TRAIN: 0, VALIDATION: 1}
"""Second number of a group's seed: training and validation never share a group."""


class GroupDraws:
    """Groups to train on, and groups to validate with.

    Args:
        dataset: What the first are drawn from.
        validation: What the second are drawn from.
        shape: What all groups have in common.
        seed: Seed of the run.
    """

    def __init__(
        self, dataset: DataConfig, validation: ValidationConfig, shape: Shape, seed: int
    ) -> None:
        self.dataset = dataset
        self.validation = validation
        self.shape = shape
        self.seed = seed

    def __getstate__(self) -> dict[str, Any]:
        # Sent to processes that draw, which open the data for themselves.
        return {name: value for name, value in self.__dict__.items() if name != "sources"}

    @cached_property
    def sources(self) -> dict[str, TrainingSet]:
        """Role -> training set."""
        train = load_source(self.dataset)
        chosen = self.validation.dataset
        return {TRAIN: train, VALIDATION: load_source(chosen) if chosen is not None else train}

    def identity(self) -> list[Any]:
        """The data, as JSON types."""
        return [self.sources[role].identity() for role in STREAMS]

    def draw(self, role: str, number: int) -> Group:
        """Group ``number`` of a role, always the same."""
        return draw_group(self.sources[role], self.shape, (self.seed, STREAMS[role], number))


def keys(counts: dict[str, int]) -> list[str]:
    """Keys under which groups are stored: role/number."""
    return [key(role, i) for role, count in counts.items() for i in range(count)]


def key(role: str, number: int) -> str:
    """Key of a stored group."""
    return f"{role}/{number:05d}"
