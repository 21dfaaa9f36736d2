"""Stages that keep one record a key: an image, a pair of images, a query, a group of crops.

A keyed stage says three things: which keys are wanted and the fingerprint of each
(`KeyedStage.find_fingerprints`), where the records are stored (`KeyedStage.store`), and what makes
records from keys (`KeyedStage.worker`). Planning, resuming, sharding, discarding and progress are
written here, once for all of them.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconstruct.executor import Outcome
from reconstruct.stages import Context, Plan, Precursor, need
from reconstruct.storage.shards import Record, ShardStore, ShardWriter, shard_size

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What a worker made of a key.

    Args:
        key: The key.
        records: A record for each of the stage's stores, None where that store needs none.
        skipped: Why there is no record; the key is tried again by the next run.
    """

    key: str
    records: tuple[Record | None, ...] = ()
    skipped: str | None = None


Worker = Callable[[Sequence[str]], Iterator[Result]]
"""Keys -> one result each, in their order: a pure function of the keys and of what is stored."""


@dataclass(frozen=True, slots=True, eq=False)
class ShardJob:
    """Makes records with a worker and commits them in shards: the job of every keyed stage.

    Args:
        worker: Makes the records.
        stores: Where they go, in the order of `Result.records`.
        missing: For each store, the keys whose records it lacks; others are not written again.
        size: Records a shard.
    """

    worker: Worker
    stores: tuple[ShardStore, ...]
    missing: tuple[frozenset[str], ...]
    size: int

    def __call__(self, keys: Sequence[str]) -> Iterator[Outcome]:
        """Make and commit the records of ``keys``."""
        writers = [ShardWriter(store, self.size) for store in self.stores]
        for result in self.worker(keys):
            for record, writer, missing in zip(result.records, writers, self.missing, strict=False):
                if record is not None and result.key in missing:
                    writer.add(record)
            yield Outcome(result.key, result.skipped)
        for writer in writers:
            writer.flush()


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
    """Whether records stay whose keys are wanted no more: an image that comes back, or another list
    of pairs, then costs nothing."""

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
    def worker(self, fingerprints: Mapping[str, str]) -> Worker:
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

    def missing(self) -> list[str]:
        """Wanted keys whose records are not there or not up to date, in the order of work."""
        missing = {key for keys in self._missing_by_store() for key in keys}
        # All wanted keys are put in order, so that a run that goes on cuts the same shards.
        return [key for key in self.order(list(self.known_fingerprints())) if key in missing]

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
        return self.fingerprints() is not None and not any(self._missing_by_store())

    def plan(self) -> Plan:
        """How many records are missing, and whether old ones are stale."""
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
        self._fingerprints = None  # what was asked before the stages before had run is void
        self.prepare()
        for store, _ in self._outputs():
            store.clean()
        started = time.perf_counter()
        self.made = self._make()
        self.seconds = time.perf_counter() - started
        for store, wanted in self._outputs():
            if self.keeps_unwanted:
                store.compact()
            else:
                store.discard(lambda key, wanted=wanted: key not in wanted)  # type: ignore[misc]
        self.settled, self._current = True, None
        self.context.summary.figures[self.name] = self.figures(self.made)

    def _make(self) -> int:
        missing = self.missing()
        made = 0
        with self.context.reporter.task(self.name, len(missing), self.unit) as advance:
            if missing:
                job = self._job()
                for outcome in self.context.executor.run(job, missing):
                    advance()
                    made += outcome.skipped is None
                    if outcome.skipped is not None:
                        self.context.summary.skipped[outcome.key] = outcome.skipped
                        logger.warning("skipped %s: %s", outcome.key, outcome.skipped)
        return made

    def _job(self) -> ShardJob:
        wanted = self.known_fingerprints()
        return ShardJob(
            worker=self.worker(wanted),
            stores=tuple(store for store, _ in self._outputs()),
            missing=tuple(self._missing_by_store()),
            size=shard_size(len(wanted), *self.shard),
        )

    def settle(self) -> None:
        """Take the stored records as they are."""
        self.settled = True

    def discard(self) -> None:
        """Drop all records."""
        self._current = None
        self.store.discard(lambda key: True)
