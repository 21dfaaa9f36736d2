"""The stages of a run: two kinds, and the chain of structure from motion, a file each.

    KeyedStage (keyed.py)   one record a key, made and resumed key by key: features, matches ...
    WholeStage (whole.py)   one artifact in one piece: pairs.txt, database.db, sparse/ ...

Both answer the same question, `current`: was what is stored made from the present settings and
inputs? Fingerprints decide. They are computed once a run, after the stages before have run.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from reconstruct.datasets import Dataset
from reconstruct.errors import UsageError
from reconstruct.executor import Executor, InProcess
from reconstruct.progress import Reporter
from reconstruct.workspace import Workspace

State = Literal["done", "missing", "stale", "waiting"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a stage would do: ``todo`` of ``total`` units of work, and why."""

    state: State
    why: str
    todo: int = 1
    total: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryCard:
    """A query and the photo of the map that it was localized with, for the report. label, caption:
    what came of it."""

    query: str
    photo: str
    label: str
    caption: str


@dataclass(slots=True)
class Summary:
    """What a run tells at its end. Written by stages, read by the report alone.

    skipped: image or file -> why it was left out. figures: stage -> name -> value, in order.
    tables: title -> rows, the first of them the head. drawings: title -> SVG, for the report.
    seconds: stage -> time it took in the run that made what is there. memory_mb: stage -> peak
    memory of the process in that run. cards: some queries with their map photos.
    """

    skipped: dict[str, str] = field(default_factory=dict)
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    drawings: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    memory_mb: dict[str, float] = field(default_factory=dict)
    cards: list[QueryCard] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What every stage of one run shares."""

    workspace: Workspace
    dataset: Dataset
    reporter: Reporter
    summary: Summary
    device: str = "auto"
    seed: int = 0
    executor: Executor = field(default_factory=InProcess)


class Precursor(Protocol):
    """What a stage reads from."""

    @property
    def name(self) -> str:
        """Its name, for messages."""

    def current(self) -> bool:
        """Whether all that the stage makes is there and up to date."""


class Stage(Precursor, Protocol):
    """A step of the pipeline. It knows the stages before it, never those after it."""

    @property
    def made(self) -> int:
        """How much `run` has made: records, or 1 for an artifact."""

    def plan(self) -> Plan:
        """What `run` would do now; changes nothing."""

    def run(self) -> None:
        """Bring what the stage makes up to date, doing only what is missing."""

    def fingerprint_of_all(self) -> str | None:
        """Fingerprint over all that the stage has left, by which summary.json knows whose figures
        it holds; None if it keeps nothing."""

    def settle(self) -> None:
        """Take what is stored as it is: the stage will not run (again) in this run."""

    def discard(self) -> None:
        """Forget what the stage made, so that the next `run` makes it anew."""


def need(ready: bool, stage: str, before: str) -> None:
    """Raises UsageError if what ``stage`` reads is not ready: it was named alone in ``only``."""
    if not ready:
        raise UsageError(
            f"{stage}: what it reads of stage {before} is missing or stale; "
            f"add {before} to --only, or leave --only out"
        )


def inner_context(context: Context, workspace: Workspace) -> Context:
    """The same run in a folder of its own, with a summary of its own but for what is skipped."""
    return replace(context, workspace=workspace, summary=Summary(skipped=context.summary.skipped))
