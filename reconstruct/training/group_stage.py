"""Stages that compute something of every group of crops, once, and keep it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from reconstruct.parallel import ahead
from reconstruct.stages import Context
from reconstruct.stages.keyed import KeyedStage, Result, Wanted, Worker
from reconstruct.storage.shard_file import Fields, Record
from reconstruct.storage.shards import ShardStore
from reconstruct.training.data.groups import Group
from reconstruct.training.draws import TRAIN, GroupDraws, keys

GROUPS_A_SHARD = 16


class GroupFields(Protocol):
    """Groups, and what is kept of them. It is sent to the processes that compute it."""

    @property
    def draws(self) -> GroupDraws:
        """The groups."""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all groups and what is kept of them, whatever their number."""

    def fields(self, group: Group) -> Fields:
        """What is kept of a group."""


class GroupStage(KeyedStage):
    """A record for each group of each role. A stopped run continues with the missing shards.

    Args:
        context: What the stages of the run share.
        source: The groups, and what is kept of them.
        counts: Role -> number of its groups.
    """

    unit = "groups"
    shard = (GROUPS_A_SHARD, GROUPS_A_SHARD)

    def __init__(self, context: Context, source: GroupFields, counts: dict[str, int]) -> None:
        super().__init__(context, ShardStore(context.workspace.root / self.name))
        self.groups = source
        self.keys = keys(counts)

    def find_fingerprints(self) -> dict[str, str]:
        """Group -> the fingerprint of the data and the network, the same for all."""
        return dict.fromkeys(self.keys, self.groups.fingerprint)

    def order(self, keys: Sequence[str]) -> list[str]:
        """Validation first."""
        return sorted(keys, key=lambda k: (TRAIN in k, k))

    def prepare(self) -> None:
        """Drop what another data set or network left: tens of gigabytes that nobody reads."""
        if len(self.missing()) == len(self.keys):
            self.discard()

    def worker(self) -> Worker:
        """Draws groups and computes what is kept of them."""
        return GroupWorker(self.groups)


@dataclass(frozen=True, slots=True)
class GroupWorker:
    """Keys -> what is kept of their groups; the next one is drawn while a network works."""

    source: GroupFields

    def __call__(self, wanted: Sequence[Wanted]) -> Iterator[Result]:
        """Results for groups."""

        def draw(item: Wanted) -> Group:
            role, _, number = item.key.partition("/")
            return self.source.draws.draw(role, int(number))

        for item, group in zip(wanted, ahead(draw, wanted, 1), strict=True):
            fields = self.source.fields(group)
            yield Result(item.key, (Record(item.key, item.fingerprint, fields),))
