"""Peak memory of this process, as the operating system counts it."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path

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
