"""Threads for work that releases Python's lock: decoding, and torch on the CPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from reconstruct.lazy import lazily

if TYPE_CHECKING:
    import torch
else:
    torch = lazily("torch")


T = TypeVar("T")
R = TypeVar("R")


def ahead(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """``map`` with results in order, computed by threads a bounded distance ahead.

    ``items`` is advanced by the caller's thread only.
    """
    source = iter(items)
    pool = ThreadPoolExecutor(threads)
    try:
        waiting: list[Future[R]] = [pool.submit(function, x) for x in islice(source, 2 * threads)]
        while waiting:
            done = waiting.pop(0)
            waiting.extend(pool.submit(function, x) for x in islice(source, 1))
            yield done.result()
    finally:
        pool.shutdown(cancel_futures=True)  # of what nobody waits for any more


def side_by_side(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """`ahead` on as many threads as torch uses, each with one of its own for torch's operations.

    For many small operations: a core is used better by an item of its own than by a part of one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from ahead(function, items, threads)
    finally:
        torch.set_num_threads(threads)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
