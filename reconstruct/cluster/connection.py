"""The connection to a Dask scheduler: one that runs already, or one started on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconstruct.cluster.dask_executor import DaskExecutor, Driver, count_workers
from reconstruct.cluster.settings import ClusterConfig
from reconstruct.errors import UsageError
from reconstruct.executor import Executor, InProcess
from reconstruct.files import parse_json, read_text
from reconstruct.ownership import HOLDER
from reconstruct.parallel import cores

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

INSTALL = "pip install 'reconstruct[cluster]'"
PRELOAD = "reconstruct.preload"
CONNECT_S = 30.0
SCHEDULER_FILE_BYTES = 1 << 24
"""Limit on the file of a scheduler, which lists its workers."""


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
        workers = count_workers(client)
        where = config.address or "this machine"
        dashboard = client.dashboard_link
        logger.info("cluster: %d worker(s) on %s; dashboard %s", workers, where, dashboard)
        if not workers:
            logger.info("cluster: waiting for workers; they may be queued")
        driver = Driver(os.getcwd(), holder, holder.read_text(encoding="utf-8"), _threads(config))
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
                    n_workers=config.workers or cores(),
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
    """The address of a scheduler: the one given, or the one that the given file holds.

    It is checked because Dask's client waits forever for a file that does not come, and, after an
    address that is not valid, when it is closed. Raises ValueError, OSError, LookupError or
    TypeError for these.
    """
    from distributed.comm import get_address_host_port, parse_address
    from distributed.comm.registry import get_backend

    if where.endswith(".json"):
        end = time.monotonic() + CONNECT_S
        while not Path(where).exists() and time.monotonic() < end:
            time.sleep(0.1)  # the scheduler may just be starting
        where = str(parse_json(read_text(where, SCHEDULER_FILE_BYTES))["address"])
    scheme, _ = parse_address(where)
    get_backend(scheme)  # is there such a scheme?
    if scheme in ("tcp", "tls", "ws", "wss"):
        _, port = get_address_host_port(where)
        if not 0 < port < 1 << 16:
            raise ValueError(f"{port} is no number of a port")
    return where


def _threads(config: ClusterConfig) -> int | None:
    if config.threads is not None or config.address is not None:
        return config.threads
    return max(1, cores() // (config.workers or cores()))
