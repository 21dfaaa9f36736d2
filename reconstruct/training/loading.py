"""Groups drawn during training, by worker processes if there are any."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset

from reconstruct.training.data.groups import Group
from reconstruct.training.draws import TRAIN
from reconstruct.training.maps import Example, GroupSource


class _Groups(Dataset[Group]):
    """Groups by number; a draw depends on its number alone, so workers need no seed."""

    def __init__(self, source: GroupSource, numbers: list[int]) -> None:
        self.source = source
        self.numbers = numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> Group:
        return self.source.draws.draw(TRAIN, self.numbers[index])


def fresh_examples(source: GroupSource, numbers: Iterable[int], workers: int) -> Iterator[Example]:
    """Groups after the frozen trunk, in order, whatever the number of workers."""
    groups = _Groups(source, list(numbers))
    options: dict[str, Any] = {"batch_size": None, "num_workers": workers}
    if workers:
        # A process that has used torch's threads cannot be forked safely.
        options["multiprocessing_context"] = "spawn"
    for group in DataLoader(groups, collate_fn=_same, **options):
        yield source.example(group)


def _same(group: Any) -> Any:
    return group
