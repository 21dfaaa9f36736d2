"""Memory of this process: the most that it has held, and what becomes of it once it is freed."""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt, in malloc.h
PROCESS = Path("/proc/self")
"""Folder in which Linux describes this process."""


def restart_peak() -> None:
    """Measure the peak from now on, where the system can (Linux); elsewhere nothing happens."""
    with contextlib.suppress(OSError):  # no Linux, or /proc is closed
        (PROCESS / "clear_refs").write_text("5")  # man 5 proc: resets the peak resident set


def peak_mb() -> float | None:
    """Peak of the resident memory in megabytes (10^6 bytes), since `restart_peak` on Linux and
    since the process began elsewhere; None where the system does not tell (Windows).

    Worker processes are not counted.
    """
    try:
        status = (PROCESS / "status").read_text(encoding="ascii", errors="replace")
    except OSError:
        status = ""
    if found := re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE):
        return int(found[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def keep_freed_memory() -> None:
    """Let the C library (glibc; others are left alone) keep up to 64 MB of what is freed for what
    comes next, as it learns to do by itself in a process that has not been told otherwise.

    Dask starts its workers with a limit of 64 kB: every large array is then new memory, which the
    system has to clear page by page. Matching, with an array of similarities a pair, took four
    times as long.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 32 << 20)
    mallopt(_M_TRIM_THRESHOLD, 64 << 20)
