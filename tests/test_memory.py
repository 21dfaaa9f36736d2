from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from reconstruct import memory


@pytest.mark.skipif(not memory.PROCESS.is_dir(), reason="only Linux counts from a moment on")
def test_the_peak_is_of_what_was_held_since_it_was_restarted() -> None:
    def peak_after(megabytes: int) -> float:
        memory.restart_peak()
        held = bytearray(b"x") * (megabytes * 10**6)
        del held
        peak = memory.peak_mb()
        assert peak is not None
        return peak

    little, much = peak_after(1), peak_after(300)
    assert much - little == pytest.approx(300, abs=30)
    assert peak_after(1) == pytest.approx(little, abs=30)


def test_where_proc_is_closed_the_whole_process_is_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = memory.peak_mb()
    monkeypatch.setattr(memory, "PROCESS", tmp_path / "absent")
    memory.restart_peak()
    whole = memory.peak_mb()
    assert here is not None
    assert whole is not None
    assert whole >= here - 1


FAULTS = """
import resource, sys
import numpy as np
from reconstruct.memory import keep_freed_memory

if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(20):
    np.ones(3 << 20, np.uint8)  # of larger ones numpy asks for large pages
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_workers_of_dask_use_freed_memory_again() -> None:
    """Dask's limit, under which they are started, gives arrays back to the system each time."""
    keeping, as_started = (
        int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, argument],
                capture_output=True,
                text=True,
                check=True,
                env={**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"},
            ).stdout
        )
        for argument in ("keep", "leave")
    )
    pages = (3 << 20) // os.sysconf("SC_PAGE_SIZE")
    assert as_started - keeping > 12 * pages
