"""Where the chunks of keyed stages run: one object's business.

A keyed stage hands over a job and the keys that lack a record. The job makes their records and
commits them; what it yields is only what became of each key. An executor decides in which process
that happens, and knows neither stages nor stores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a key. skipped: why it has no record; None: it has one."""

    key: str
    skipped: str | None = None


class Job(Protocol):
    """Work on keys that can be done in pieces, in any process."""

    def __call__(self, keys: Sequence[str]) -> Iterator[Outcome]:
        """Make and commit the records of ``keys``, in that order."""


class Executor(Protocol):
    """Runs jobs."""

    def run(self, job: Job, keys: Sequence[str]) -> Iterator[Outcome]:
        """Run ``job`` on all of ``keys``; outcomes come as they are reached."""


class InProcess:
    """The executor that runs a job in this process, in one piece.

    In one piece, so that what the job reads ahead is not thrown away at the end of a chunk.
    """

    def run(self, job: Job, keys: Sequence[str]) -> Iterator[Outcome]:
        """Run ``job`` on all of ``keys`` in their order."""
        if keys:
            yield from job(keys)
