"""Where the chunks of keyed stages run: in this process, or elsewhere.

A keyed stage hands over a job and chunks of the keys that lack a record. The job makes their
records and commits them, and yields only what became of each key. An executor decides in which
process that happens, and knows neither stages nor stores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a key.

    Args:
        key: The key.
        skipped: Why it has no record; None: it has one.
        notes: Other inputs that were left out on the way -> why.
    """

    key: str
    skipped: str | None = None
    notes: Mapping[str, str] = field(default_factory=dict)


class Job(Protocol):
    """Work that comes in chunks, each of which can be done in any process.

    It can be pickled, and then consists of settings and paths: what it reads and what it computes
    with, such as a network, is loaded where it runs, once for all its chunks there.
    """

    def __call__(self, chunks: Sequence[Any]) -> Iterator[Outcome]:
        """Make and commit the records of ``chunks``, in that order.

        A chunk has a length: so many outcomes come before it is committed.
        """


class Executor(Protocol):
    """Runs jobs."""

    def run(self, job: Job, chunks: Sequence[Any]) -> Iterator[Outcome]:
        """Run ``job`` on all of ``chunks``; yields outcomes as they come, in any order."""


class InProcess:
    """The executor that runs a job in this process, in one piece.

    In one piece, so that what the job reads ahead is not thrown away at the end of a chunk.
    """

    def run(self, job: Job, chunks: Sequence[Any]) -> Iterator[Outcome]:
        """Run ``job`` on all of ``chunks`` in their order."""
        if chunks:
            yield from job(chunks)
