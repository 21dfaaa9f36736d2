"""Stages that keep one record a key: an image, a pair of images, a query, a group of crops.

A keyed stage says three things: which keys are wanted and the fingerprint of each
(`KeyedStage.find_fingerprints`), where the records are stored (`KeyedStage.store`), and what makes
records from keys (`KeyedStage.worker`). Planning, resuming, sharding, discarding and progress are
written here, once for all of them.
"""

from __future__ import annotations

import logging
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from reconstruct.errors import UsageError
from reconstruct.executor import Outcome
from reconstruct.fingerprints import fingerprint
from reconstruct.stages import Context, Plan, Precursor, need
from reconstruct.storage.shard_file import Record
from reconstruct.storage.shard_writer import shard_size
from reconstruct.storage.shards import ShardStore

logger = logging.getLogger(__name__)


class Wanted(NamedTuple):
    """A record to make.

    Args:
        key: Its key.
        fingerprint: Its fingerprint.
        chunk: Number of its chunk among those that are made in one go.
    """

    key: str
    fingerprint: str
    chunk: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What a worker made of a key.

    Args:
        key: The key.
        records: A record for each of the stage's stores, None where that store needs none.
        skipped: Why there is no record; the key is tried again by the next run.
        notes: Other inputs that were left out on the way -> why.
    """

    key: str
    records: tuple[Record | None, ...] = ()
    skipped: str | None = None
    notes: Mapping[str, str] = field(default_factory=dict)


Worker = Callable[[Sequence[Wanted]], Iterator[Result]]
"""What is wanted -> one result each, in that order: a pure function of it and of what is stored.

Workers are sent to other processes: they can be pickled, and load what is large where they run.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Keys whose records make one shard of each of a stage's stores.

    Args:
        fingerprints: Key -> fingerprint of its record in the first store, in the order of work.
        missing: For each store, the keys whose records it lacks; others are not written again.
        numbers: For each store, the number of the shard.
    """

    fingerprints: Mapping[str, str]
    missing: tuple[frozenset[str], ...]
    numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.fingerprints)


@dataclass(frozen=True, slots=True, eq=False)
class ShardJob:
    """Makes records with a worker and commits them chunk by chunk: the job of every keyed stage.

    Args:
        worker: Makes the records.
        stores: Where they go, in the order of `Result.records`.
        photos: Folder of the photos.
    """

    worker: Worker
    stores: tuple[ShardStore, ...]
    photos: Path

    def __call__(self, chunks: Sequence[Chunk]) -> Iterator[Outcome]:
        """Make and commit the records of ``chunks``. Raises UsageError if there are no photos."""
        if not self.photos.is_dir():  # every single one would be skipped as unreadable
            raise UsageError(
                f"{self.photos}: no such folder of photos on {socket.gethostname()}; all machines "
                "need it under one path"
            )
        results = self.worker(
            [
                Wanted(key, value, number)
                for number, chunk in enumerate(chunks)
                for key, value in chunk.fingerprints.items()
            ]
        )
        for chunk in chunks:
            records: list[list[Record]] = [[] for _ in self.stores]
            for key in chunk.fingerprints:
                result = next(results)
                assert result.key == key
                for record, kept, missing in zip(
                    result.records, records, chunk.missing, strict=False
                ):
                    if record is not None and key in missing:
                        kept.append(record)
                yield Outcome(key, result.skipped, result.notes)
            for store, kept, number in zip(self.stores, records, chunk.numbers, strict=True):
                if kept:
                    store.write(kept, number)
        assert next(results, None) is None  # and the worker ends what it has begun


class KeyedStage(ABC):
    """A stage with one record a key; see the module.

    Args:
        context: What the stages of the run share.
        store: Where the records are.
        before: The stages whose results this one reads.
    """

    name: str
    unit: str
    """What the progress counts."""
    shard = (4, 64)
    """Fewest and most records a file: a small job loses little when killed, a large one has few
    files."""
    keeps_unwanted = True
    """Whether records of keys that are no longer wanted are kept: an image that comes back, or
    another list of pairs, then costs nothing."""

    def __init__(
        self, context: Context, store: ShardStore, before: Sequence[Precursor] = ()
    ) -> None:
        self.context = context
        self.store = store
        self.before = tuple(before)
        self.settled = False
        self.made, self.seconds = 0, 0.0  # records of this run, and what they took
        self._current: bool | None = None
        self._fingerprints: Mapping[str, str] | None = None

    @abstractmethod
    def find_fingerprints(self) -> Mapping[str, str] | None:
        """Key -> fingerprint that its record must have, for all wanted keys.

        None where that cannot be known before an earlier stage has run.
        """

    @abstractmethod
    def worker(self) -> Worker:
        """What makes records; called only if some are missing."""

    @abstractmethod
    def figures(self, made: int) -> dict[str, Any]:
        """What the summary tells, once all records are there; ``made`` of them in this run."""

    def order(self, keys: Sequence[str]) -> list[str]:
        """The order in which missing records are made."""
        return sorted(keys)

    def prepare(self) -> None:  # noqa: B027 - few stages have to
        """Make what fingerprints depend on, and cannot be known before."""

    def further_outputs(self) -> list[tuple[ShardStore, Mapping[str, str]]]:
        """Stores beside `store` that the same worker fills, with the fingerprints of their keys."""
        return []

    def count_wanted(self) -> int | None:
        """How many keys are wanted, where that is known without their fingerprints."""
        return None

    def fingerprints(self) -> Mapping[str, str] | None:
        """`find_fingerprints`, computed once a run."""
        if self._fingerprints is None:
            self._fingerprints = self.find_fingerprints()
        return self._fingerprints

    def known_fingerprints(self) -> Mapping[str, str]:
        """`fingerprints` of a stage whose stages before are current."""
        found = self.fingerprints()
        if found is None:
            need(False, self.name, self.before[-1].name)
            raise AssertionError
        return found

    def _outputs(self) -> list[tuple[ShardStore, Mapping[str, str]]]:
        return [(self.store, self.known_fingerprints()), *self.further_outputs()]

    def missing(self) -> set[str]:
        """Wanted keys whose records are not there or not up to date."""
        return {key for keys in self._missing_by_store() for key in keys}

    def _missing_by_store(self) -> list[frozenset[str]]:
        result = []
        for store, wanted in self._outputs():
            stored = store.fingerprints()
            result.append(frozenset(k for k, value in wanted.items() if stored.get(k) != value))
        return result

    def current(self) -> bool:
        """Whether the stages before are current, and the record of every wanted key with them."""
        if self._current is None or not self.settled:
            before = all(stage.current() for stage in self.before)
            self._current = before and self.complete()
        return self._current

    def complete(self) -> bool:
        """Whether no record is missing."""
        if self.count_wanted() and not self.store.fingerprints():
            return False
        return self.fingerprints() is not None and not any(self._missing_by_store())

    def plan(self) -> Plan:
        """How many records are missing, and whether old ones are stale."""
        count = self.count_wanted()
        if count and not self.store.fingerprints():
            return Plan("missing", f"0 changed (inputs or settings), {count} new", count, count)
        wanted = self.fingerprints()
        if wanted is None:
            return Plan("waiting", "follows what the stages before it bring")
        missing = self.missing()
        if not missing:
            return Plan("done", "up to date", 0, len(wanted))
        stored = self.store.fingerprints()
        stale = sum(key in stored for key in missing)
        why = f"{stale} changed (inputs or settings), {len(missing) - stale} new"
        return Plan("stale" if stale else "missing", why, len(missing), len(wanted))

    def run(self) -> None:
        """Make the records that are missing.

        Raises:
            UsageError: What the stage reads is not there.
        """
        if self.settled and self.current():
            return  # several methods of a benchmark may share the stage
        for stage in self.before:
            need(stage.current(), self.name, stage.name)
        self._fingerprints = None  # one from before the earlier stages ran is out of date
        self.prepare()
        started = time.perf_counter()
        self.made += self._make()
        self.seconds = time.perf_counter() - started
        for store, wanted in self._outputs():
            if self.keeps_unwanted:
                store.compact()
            else:
                store.discard(lambda key, wanted=wanted: key not in wanted)  # type: ignore[misc]
        self.settled, self._current = True, None
        self.context.summary.figures[self.name] = self.figures(self.made)

    def _make(self) -> int:
        chunks, made = self._chunks(), []
        with self.context.reporter.task(self.name, sum(map(len, chunks)), self.unit) as advance:
            if chunks:
                stores = tuple(store for store, _ in self._outputs())
                job = ShardJob(self.worker(), stores, self.context.dataset.root)
                for outcome in self.context.executor.run(job, chunks):
                    advance()
                    self.context.summary.skipped.update(outcome.notes)
                    if outcome.skipped is None:
                        made.append(outcome.key)
                    else:
                        self.context.summary.skipped[outcome.key] = outcome.skipped
                        logger.warning("skipped %s: %s", outcome.key, outcome.skipped)
        for store, wanted in self._outputs():
            store.see({key: wanted[key] for key in made if key in wanted})
        return len(made)

    def _chunks(self) -> list[Chunk]:
        """What is missing, divided as a run that makes everything would divide it: a run that was
        killed, or left photos out, continues with the same shards."""
        wanted, missing = self.known_fingerprints(), self._missing_by_store()
        if not any(missing):
            return []
        order, size = self.order(list(wanted)), shard_size(len(wanted), *self.shard)
        cut = [order[start : start + size] for start in range(0, len(order), size)]
        cut = [[key for key in keys if any(key in m for m in missing)] for keys in cut]
        cut = [keys for keys in cut if keys]
        # Of several stores, a killed run may have left a chunk in one and not in the other.
        lacking = ([keys if m.intersection(keys) else [] for keys in cut] for m in missing)
        numbers = [
            store.free_numbers(chunks)
            for (store, _), chunks in zip(self._outputs(), lacking, strict=True)
        ]
        return [
            Chunk(
                fingerprints={key: wanted[key] for key in keys},
                missing=tuple(m.intersection(keys) for m in missing),
                numbers=numbers_of_chunk,
            )
            for keys, numbers_of_chunk in zip(cut, zip(*numbers, strict=True), strict=True)
        ]

    def fingerprint_of_all(self) -> str:
        """Fingerprint over the records of all wanted keys that are there."""
        wanted, missing = self.known_fingerprints(), self.missing()
        there = "".join(value for key, value in wanted.items() if key not in missing)
        return fingerprint(self.name, there)

    def settle(self) -> None:
        """Take the stored records as they are."""
        self.settled = True

    def renew(self) -> None:
        """Forget what was computed of its inputs: they have changed in this run."""
        self.settled, self._current, self._fingerprints = False, None, None

    def discard(self) -> None:
        """Drop all records."""
        self._current = None
        self.store.discard(lambda key: True)
