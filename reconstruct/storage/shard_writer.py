"""Cutting a stream of records into shards."""

from __future__ import annotations

from reconstruct.storage.shard_file import Record
from reconstruct.storage.shards import ShardStore


class ShardWriter:
    """Commits what is added in shards of ``size`` records, and the rest when flushed.

    The cut depends only on the order of the records: a run that was killed and goes on with what
    is missing writes the same shards as one that was never killed.
    """

    def __init__(self, store: ShardStore, size: int) -> None:
        self._store, self._size = store, size
        self._buffer: list[Record] = []

    def add(self, record: Record) -> None:
        """Keep a record for the present shard; commits the shard when it is full."""
        self._buffer.append(record)
        if len(self._buffer) == self._size:
            self.flush()

    def flush(self) -> None:
        """Commit what is left."""
        if self._buffer:
            self._store.write(self._buffer)
            self._buffer = []


def shard_size(total: int, low: int, high: int) -> int:
    """Records a shard, so that small jobs lose little when killed and large ones have few files."""
    return min(max(total // 16, low), high)
