"""Stages that make one artifact in one piece from what the stages before them left."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reconstruct.stages import Context, Plan, Precursor, need


class WholeStage(ABC):
    """A stage with one artifact: a file or a folder of the output folder.

    Args:
        context: What the stages of the run share.
        artifact: What the stage makes.
        before: The stages whose results this one reads.
    """

    name: str

    def __init__(self, context: Context, artifact: Path, before: Sequence[Precursor] = ()) -> None:
        self.context = context
        self.workspace = context.workspace
        self.artifact = artifact
        self.before = tuple(before)
        self.settled = False
        self.made, self.seconds = 0, 0.0  # whether this run made it, and what that took
        self._current: bool | None = None
        self._fingerprint: str | None = None

    @abstractmethod
    def find_fingerprint(self) -> str | None:
        """Fingerprint over all that decides the artifact.

        None where that cannot be known before an earlier stage has run.
        """

    @abstractmethod
    def make(self) -> None:
        """Write the artifact."""

    @abstractmethod
    def figures(self) -> dict[str, Any]:
        """What the summary tells, once the artifact is there."""

    def fingerprint(self) -> str | None:
        """`find_fingerprint`, computed once a run."""
        if self._fingerprint is None:
            self._fingerprint = self.find_fingerprint()
        return self._fingerprint

    def current(self) -> bool:
        """Whether the stages before are current, and the artifact was made from what they left."""
        if self._current is None or not self.settled:
            before = all(stage.current() for stage in self.before)
            self._current = before and self.artifact_current()
        return self._current

    def artifact_current(self) -> bool:
        """Whether the artifact was made under the present fingerprint, and is whole."""
        wanted = self.fingerprint()
        return wanted is not None and self.workspace.stamp(self.artifact) == wanted

    def plan(self) -> Plan:
        """Whether the artifact has to be made."""
        missing = Plan("missing", f"no {self.artifact.name} yet")
        if not self.artifact.exists() and not all(stage.current() for stage in self.before):
            return missing  # of what: that takes long to say, of millions of pairs
        if self.fingerprint() is None:
            return Plan("waiting", "follows what the stages before it bring")
        if self.artifact_current():
            return Plan("done", "up to date", 0)
        if self.workspace.stamp(self.artifact) is None:
            return missing
        return Plan("stale", f"settings or inputs changed since {self.artifact.name} was made")

    def run(self) -> None:
        """Make the artifact if it is not current.

        Raises:
            UsageError: What the stage reads is not there.
        """
        if self.settled and self.current():
            return
        for stage in self.before:
            need(stage.current(), self.name, stage.name)
        self._fingerprint = None  # one from before the earlier stages ran is out of date
        started = time.perf_counter()
        if not self.artifact_current():
            self.made = 1
            self.workspace.set_stamp(self.artifact, None)
            self.make()
            self.workspace.set_stamp(self.artifact, self.fingerprint())
        else:
            self.workspace.renew_stamp(self.artifact)
        self.seconds = time.perf_counter() - started
        self.settled, self._current = True, None
        self.context.summary.figures[self.name] = self.figures()

    def fingerprint_of_all(self) -> str | None:
        """The artifact's fingerprint."""
        return self.fingerprint()

    def settle(self) -> None:
        """Take the artifact as it is."""
        self.settled = True

    def renew(self) -> None:
        """Forget what was computed of its inputs: they have changed in this run."""
        self.settled, self._current, self._fingerprint = False, None, None

    def discard(self) -> None:
        """Forget the artifact."""
        self._current = None
        self.workspace.set_stamp(self.artifact, None)
