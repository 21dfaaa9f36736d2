"""The stages of a run, one file each: settings, pure functions, then the thin part with files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from reconstruct.datasets import Dataset
from reconstruct.errors import UsageError
from reconstruct.progress import Reporter
from reconstruct.storage.shards import Record, ShardStore, clean_temporaries, write_in_shards
from reconstruct.workspace import Workspace

State = Literal["done", "missing", "stale", "waiting"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a stage would do: ``todo`` of ``total`` units of work, and why."""

    state: State
    why: str
    todo: int = 1
    total: int = 1


@dataclass(slots=True)
class Summary:
    """What a run tells at its end.

    skipped: image or file -> why it was left out. figures: stage -> name -> value, in order.
    tables: title -> rows, the first of them the head. drawings: title -> SVG, for the report.
    """

    skipped: dict[str, str] = field(default_factory=dict)
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    drawings: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What every stage of one run shares."""

    workspace: Workspace
    dataset: Dataset
    reporter: Reporter
    summary: Summary
    device: str = "auto"
    seed: int = 0


class Stage(Protocol):
    """A step of the pipeline. It knows the stages before it, never those after it."""

    name: str

    def plan(self) -> Plan:
        """What `run` would do now; changes nothing."""

    def run(self) -> None:
        """Bring the stage's artifact up to date, doing only what is missing."""

    def discard(self) -> None:
        """Forget the artifact, so that the next `run` makes it anew."""


def need(ready: bool, stage: str, before: str) -> None:
    """Raises UsageError if what ``stage`` reads is not ready: it was named alone in ``only``."""
    if not ready:
        raise UsageError(
            f"{stage}: what it reads of stage {before} is missing or stale; "
            f"add {before} to --only, or leave --only out"
        )


def plan_whole(context: Context, artifact: Any, fingerprint: str | None, unit: str) -> Plan:
    """The plan of a stage that makes one artifact in one piece.

    fingerprint: None where it cannot be known before an earlier stage has run.
    """
    if fingerprint is None:
        return Plan("waiting", "follows what the stages before it bring")
    stamp = context.workspace.stamp(artifact)
    if stamp == fingerprint:
        return Plan("done", "up to date", 0)
    if stamp is None:
        return Plan("missing", f"no {unit} yet")
    return Plan("stale", f"settings or inputs changed since {unit} was made")


def plan_parts(wanted: Mapping[str, str] | None, have: Mapping[str, str], waiting: str) -> Plan:
    """The plan of a stage that keeps a record a key.

    wanted: key -> the fingerprint that its record must have; None, for which ``waiting`` is the
    reason, where it cannot be known yet. have: those of the stored records.
    """
    if wanted is None:
        return Plan("waiting", waiting)
    todo = [key for key, value in wanted.items() if have.get(key) != value]
    if not todo:
        return Plan("done", "up to date", 0, len(wanted))
    stale = sum(key in have for key in todo)
    why = f"{stale} changed, {len(todo) - stale} new"
    return Plan("stale" if stale else "missing", why, len(todo), len(wanted))


def make_parts(
    context: Context,
    stage: str,
    store: ShardStore,
    wanted: Mapping[str, str],
    records: Callable[[list[str]], Iterable[Record]],
    *,
    unit: str,
    shard: int,
) -> int:
    """Bring a store up to date: make what is missing, drop what is not wanted; how many were made.

    records: the sorted keys to make -> their records, in that order. unit: what the progress
    counts. shard: records a file.
    """
    clean_temporaries(store.folder)
    have = store.fingerprints()
    todo = [key for key in sorted(wanted) if have.get(key) != wanted[key]]
    with context.reporter.task(stage, len(todo), unit) as advance:
        for _ in write_in_shards(store, records(todo), shard):
            advance()
    store.discard(lambda key: key not in wanted)
    return len(todo)
