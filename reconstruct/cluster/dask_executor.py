"""Chunks of a keyed stage on the workers of a Dask cluster."""

from __future__ import annotations

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

from reconstruct.cluster.settings import ClusterConfig
from reconstruct.errors import DataError, ReconstructError, UsageError
from reconstruct.executor import Job, Outcome
from reconstruct.memory import keep_freed_memory

if TYPE_CHECKING:
    from distributed import Client, Future, as_completed

AHEAD = 4
"""Chunks that are submitted ahead for each worker, so that none waits for the driver."""
POLL_S = 0.01
WORKERS_S = 60.0
"""How often the driver looks whether a chunk is done, and whether any worker is left."""


@dataclass(frozen=True, slots=True)
class Driver:
    """The program that a worker works for.

    Args:
        folder: The driver's current folder, which relative paths start from.
        holder: File in the output folder with the name of the run that holds its lock.
        mark: Content of that file while this run holds the folder.
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
    driver: Driver

    def run(self, job: Job, chunks: Sequence[Any]) -> Iterator[Outcome]:
        """Run ``job`` on all of ``chunks``, each on one worker.

        Raises:
            ReconstructError: The job raised it.
            DataError: Too many workers died with one chunk, or the scheduler is gone.
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
        ahead = AHEAD * max(count_workers(self.client), 16)
        first = [self._submit(received, chunk) for chunk in islice(waiting, ahead)]
        running = as_completed(first, loop=self.client.loop)
        while not running.is_empty():
            yield from self._outcomes(self._next(running))
            for chunk in islice(waiting, 1):
                running.add(self._submit(received, chunk))

    def _next(self, running: as_completed) -> Future:
        """The next chunk that is done. Raises DataError if nobody is left to work on one.

        Dask starts a worker of this machine again that dies, but gives up where that fails; those
        of a scheduler elsewhere may still be queued.
        """
        seen = time.monotonic()
        while not running.has_ready():
            time.sleep(POLL_S)
            waited = time.monotonic() - seen
            if self.config.address is None and waited > WORKERS_S:
                if not count_workers(self.client):
                    raise DataError(
                        "cluster: no worker is left on this machine: they died and could not be "
                        "started again; give them more memory (cluster.memory) or start fewer, "
                        "then run again to go on"
                    )
                seen = time.monotonic()
        return next(running)

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


def count_workers(client: Client) -> int:
    """How many workers the scheduler knows of."""
    return len(client.scheduler_info(n_workers=-1).get("workers", ()))


_ONE_CHUNK = threading.Lock()
"""A worker process works on one chunk at a time, with all its threads, whatever Dask's setting."""


def _work(job: Job, chunk: Any, driver: Driver) -> list[Outcome] | ReconstructError:
    """On a worker: make and commit the records of a chunk.

    An error that the job raises on purpose is returned, so that Dask does not try again.
    """
    import cv2
    import torch
    from distributed import get_worker

    with _ONE_CHUNK:
        keep_freed_memory()
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
