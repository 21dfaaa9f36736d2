"""Section ``cluster`` of a pipeline file, and what ``--cluster`` says."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from reconstruct.config import Section, shown
from reconstruct.errors import UsageError

MAX_WORKERS = 1024
"""Processes on one machine; more would bring it down."""


class ClusterConfig(Section):
    """Section ``cluster``: where chunks of images, pairs and queries are worked on.

    Results do not depend on it, so it can be changed between two runs of one output folder.
    """

    address: str | None = None
    """Address of a Dask scheduler, e.g. tcp://host:8786, or its scheduler file; null: workers are
    started on this machine."""
    workers: int | None = Field(None, ge=1, le=MAX_WORKERS)
    """Worker processes on this machine; null: one a core."""
    threads: int | None = Field(None, ge=1)
    """Threads of a worker; null: the cores of this machine divided by its workers, or, with
    ``address``, as many as the worker was started with."""
    memory: str | None = Field(None, pattern=r"^\d+(\.\d+)? ?[kMGT]i?B$")
    """Memory of a worker on this machine, e.g. 8GB, beyond which it is restarted; null: an equal
    share of all."""
    resources: dict[str, float] = Field(default_factory=dict)
    """What a worker must offer to be given a chunk, e.g. {GPU: 1}."""
    retries: int = Field(3, ge=0)
    """How often a chunk is tried again after its worker died, or could not read or write."""


def parse_cluster(text: str) -> dict[str, Any]:
    """What ``--cluster`` says, as settings of section ``cluster``.

    Raises:
        UsageError: It is neither ``local``, ``local:N`` nor an address.
    """
    kind, _, rest = text.partition(":")
    if kind == "local" and (not rest or (rest.isdigit() and int(rest) > 0)):
        return {"address": None, "workers": int(rest) if rest else None}
    if "://" in text or text.endswith(".json"):
        return {"address": text}
    raise UsageError(
        f"--cluster {shown(text)}: expected local:N for N workers on this machine, the address of "
        "a Dask scheduler (tcp://host:8786), or its scheduler file (scheduler.json)"
    )
