"""Chunks of keyed stages on the workers of a Dask cluster.

    --cluster local:4               four worker processes on this machine
    --cluster tcp://host:8786       the workers of a scheduler that runs already

The driver, which is the program that was started, plans, and sends each worker settings and keys
(see `reconstruct.executor.Job`). Workers read photos and write shards in the output folder, which
all machines see under one path; nothing of that passes through the scheduler.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from reconstruct.config import Section, shown
from reconstruct.errors import DataError, ReconstructError, UsageError
from reconstruct.executor import Executor, InProcess, Job, Outcome
from reconstruct.files import read_text
from reconstruct.workspace import HOLDER

if TYPE_CHECKING:
    from distributed import Client, Future

logger = logging.getLogger(__name__)

INSTALL = "pip install 'reconstruct[cluster]'"
PRELOAD = "reconstruct.preload"
AHEAD = 4
"""Chunks a worker that the scheduler knows of, so that no worker waits for the driver."""
CONNECT_S = 30.0
SCHEDULER_FILE_BYTES = 1 << 24
"""Limit on the file of a scheduler, which lists its workers."""


class ClusterConfig(Section):
    """Section ``cluster``: where chunks of images, pairs and queries are worked on.

    Results do not depend on it, so it can be changed between two runs of one output folder.
    """

    address: str | None = None
    """Of a Dask scheduler, e.g. tcp://host:8786, or its scheduler file; null: workers are started
    on this machine."""
    workers: int | None = Field(None, ge=1)
    """Worker processes on this machine; null: one a core."""
    threads: int | None = Field(None, ge=1)
    """Threads of a worker; null: the cores of this machine by its workers, or, with ``address``, as
    many as the worker was started with."""
    memory: str | None = Field(None, pattern=r"^\d+(\.\d+)? ?[kMGT]i?B$")
    """Memory of a worker on this machine, e.g. 8GB, beyond which it is started anew; null: all, in
    equal parts."""
    resources: dict[str, float] = Field(default_factory=dict)
    """What a worker must offer to be given a chunk, e.g. {GPU: 1}."""
    retries: int = Field(3, ge=0)
    """How often a chunk is tried again whose worker died or could not read or write."""


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


@contextlib.contextmanager
def open_executor(config: ClusterConfig | None, output: Path) -> Iterator[Executor]:
    """Where a run's chunks go; None: they stay in this process.

    Args:
        config: Section ``cluster``.
        output: Output folder, which the run holds the lock of.

    Raises:
        UsageError: Dask is not installed, or there is no scheduler at that address.
    """
    if config is None:
        yield InProcess()
        return
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(_connected(config))
        client.forward_logging("reconstruct", level=logging.INFO)
        holder = (output / HOLDER).absolute()
        workers = _count_workers(client)
        where = config.address or "this machine"
        dashboard = client.dashboard_link
        logger.info("cluster: %d worker(s) on %s; dashboard %s", workers, where, dashboard)
        if not workers:
            logger.info("cluster: waiting for workers; they may be queued")
        driver = _Driver(os.getcwd(), holder, holder.read_text(encoding="utf-8"), _threads(config))
        yield DaskExecutor(client, config, driver)


@contextlib.contextmanager
def _connected(config: ClusterConfig) -> Iterator[Client]:
    try:
        import dask
        import distributed
    except ImportError as error:
        raise UsageError(f"cluster: needs Dask, which is not installed: {INSTALL}") from error
    preload = dask.config.get("distributed.worker.preload")
    settings = {
        "distributed.worker.preload": [
            *([preload] if isinstance(preload, str) else preload),
            PRELOAD,
        ],
        "distributed.scheduler.allowed-failures": config.retries,
        "distributed.admin.large-graph-warning-threshold": "1GB",
    }
    with dask.config.set(settings), contextlib.ExitStack() as stack:
        where: Any = config.address
        if where is None:
            where = stack.enter_context(
                distributed.LocalCluster(
                    n_workers=config.workers or _cores(),
                    threads_per_worker=1,
                    memory_limit=config.memory or "auto",
                    resources=config.resources or None,
                    dashboard_address="127.0.0.1:0",
                )
            )
            # At the end, "still alive after 4.0 seconds" is nothing to warn of.
            stack.callback(logging.getLogger("distributed.nanny").setLevel, logging.ERROR)
        try:
            address = _checked(where) if isinstance(where, str) else where
            client = distributed.Client(address, timeout=CONNECT_S, set_as_default=False)
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise UsageError(
                f"cluster.address: no Dask scheduler answers at {where} ({error}); start one with "
                "`dask scheduler`, or use --cluster local:N"
            ) from error
        yield stack.enter_context(client)


def _checked(where: str) -> str:
    """The address of a scheduler, which is given or stands in its file.

    Dask's client waits without end for a file that does not come, and when it is taken down after
    an address that is none. Raises ValueError, OSError, LookupError or TypeError for these.
    """
    from distributed.comm import get_address_host_port, parse_address
    from distributed.comm.registry import get_backend

    if where.endswith(".json"):
        end = time.monotonic() + CONNECT_S
        while not Path(where).exists() and time.monotonic() < end:
            time.sleep(0.1)  # the scheduler may just be starting
        where = str(json.loads(read_text(where, SCHEDULER_FILE_BYTES))["address"])
    scheme, _ = parse_address(where)
    get_backend(scheme)  # is there such a scheme?
    if scheme in ("tcp", "tls", "ws", "wss"):
        _, port = get_address_host_port(where)
        if not 0 < port < 1 << 16:
            raise ValueError(f"{port} is no number of a port")
    return where


def _count_workers(client: Client) -> int:
    return len(client.scheduler_info(n_workers=-1).get("workers", ()))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _threads(config: ClusterConfig) -> int | None:
    if config.threads is not None or config.address is not None:
        return config.threads
    return max(1, _cores() // (config.workers or _cores()))


@dataclass(frozen=True, slots=True)
class _Driver:
    """The program that a worker works for.

    Args:
        folder: The driver's current folder, which relative paths start from.
        holder: File in the output folder that names the run that holds it.
        mark: What stands there as long as that run is this one.
        threads: Threads of a worker; None: as many as it was started with.
    """

    folder: str
    holder: Path
    mark: str
    threads: int | None

    def check(self) -> None:
        """Raises UsageError if this run does not hold the output folder, as seen from here.

        Else a worker whose driver was killed would write into the folder of the next run.
        """
        try:
            found = self.holder.read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(
                f"{self.holder.parent}: not seen by worker {socket.gethostname()} as the output "
                "folder of this run; all machines need it, and the photos, under one path"
            ) from error
        if found != self.mark:
            raise UsageError(f"{self.holder.parent}: another run has taken over")

    def enter(self) -> None:
        """Go to the driver's current folder. Raises UsageError if it is not there."""
        try:
            os.chdir(self.folder)
        except OSError as error:
            raise UsageError(
                f"{self.folder}: no such folder on {socket.gethostname()}; start the run from a "
                "folder that all machines share"
            ) from error


@dataclass(frozen=True, slots=True, eq=False)
class DaskExecutor:
    """Runs jobs on the workers of a Dask cluster."""

    client: Client
    config: ClusterConfig
    driver: _Driver

    def run(self, job: Job, chunks: Sequence[Any]) -> Iterator[Outcome]:
        """Run ``job`` on all of ``chunks``, each on one worker.

        Raises:
            ReconstructError: That of the job.
            DataError: Workers died with a chunk too often, or the scheduler is gone.
        """
        if not chunks:
            return
        from distributed.comm import CommClosedError

        try:
            yield from self._run(job, chunks)
        except Exception as error:
            connected = self.client.status == "running" and not isinstance(error, CommClosedError)
            if connected or isinstance(error, ReconstructError):
                raise
            raise DataError(
                "cluster: the scheduler is gone; what was written stays, run again to go on"
            ) from error

    def _run(self, job: Job, chunks: Sequence[Any]) -> Iterator[Outcome]:
        from distributed import as_completed

        # A task whose result is the job: it is kept by every worker that needs it, and loads its
        # network there once; if all of them die it is made again.
        received = self.client.submit(pickle.loads, pickle.dumps(job), pure=False)
        waiting = iter(chunks)
        ahead = AHEAD * max(_count_workers(self.client), 16)
        first = [self._submit(received, chunk) for chunk in islice(waiting, ahead)]
        running = as_completed(first, loop=self.client.loop)
        for future in running:
            yield from self._outcomes(future)
            for chunk in islice(waiting, 1):
                running.add(self._submit(received, chunk))

    def _submit(self, received: Future, chunk: Any) -> Future:
        return self.client.submit(
            _work,
            received,
            chunk,
            self.driver,
            pure=False,
            retries=self.config.retries,
            resources=self.config.resources or None,
        )

    def _outcomes(self, future: Future) -> list[Outcome]:
        from distributed import KilledWorker

        try:
            found: list[Outcome] | ReconstructError = future.result()
        except KilledWorker as error:
            raise DataError(
                f"cluster: {self.config.retries + 1} workers died one after another with the same "
                f"chunk ({error}); if their logs tell of memory, give them more (cluster.memory) "
                "or fewer to a machine, then run again to go on"
            ) from error
        if isinstance(found, ReconstructError):
            raise found
        return found


_ONE_CHUNK = threading.Lock()
"""A worker process works on one chunk at a time, with all its threads, whatever Dask's setting."""


def _work(job: Job, chunk: Any, driver: _Driver) -> list[Outcome] | ReconstructError:
    """On a worker: make and commit the records of a chunk.

    What the job raises on purpose is returned: to try again would not help.
    """
    import cv2
    import torch
    from distributed import get_worker

    with _ONE_CHUNK:
        threads = driver.threads or get_worker().state.nthreads
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        try:
            driver.check()
            driver.enter()
            outcomes = []
            for outcome in job([chunk]):
                outcomes.append(outcome)
                if len(outcomes) == len(chunk):  # before it is committed
                    driver.check()
            return outcomes
        except ReconstructError as error:
            return error
