"""Rows of a table side by side: the last stage of a file that runs several ways of one thing."""

from __future__ import annotations

from abc import ABC, abstractmethod

from reconstruct.stages import Context, Plan


class SideBySide(ABC):
    """Compares the rows that have run, and leaves out the others. It takes a moment, so it keeps
    nothing and is always done anew.
    """

    name: str
    made = 1

    def __init__(self, context: Context) -> None:
        self.context = context

    @abstractmethod
    def run(self) -> None:
        """Write metrics.json and the tables of the summary."""

    def plan(self) -> Plan:
        """Always done anew."""
        return Plan("missing", "compares the rows that have run")

    def current(self) -> bool:
        """Never."""
        return False

    def fingerprint_of_all(self) -> None:  # noqa: B027 - it keeps nothing
        """None: it keeps nothing."""

    def settle(self) -> None:  # noqa: B027 - it keeps nothing
        """Nothing to take."""

    def discard(self) -> None:  # noqa: B027 - it keeps nothing
        """Nothing is kept."""
