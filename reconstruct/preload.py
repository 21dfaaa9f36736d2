"""Loaded by Dask workers when they start: ``dask worker --preload reconstruct.preload``.

Once COLMAP's library is in a process, SIGTERM makes it print a C++ stack dump, as if it had
crashed. If it is loaded here, signal handlers can be restored afterwards, and the first chunk need
not wait for it.
"""

from __future__ import annotations

import signal
from typing import Any


def dask_setup(worker: Any) -> None:
    """Load what all stages need."""
    before = signal.getsignal(signal.SIGTERM)
    import torch  # noqa: F401

    import reconstruct.stages.verify  # noqa: F401 - pycolmap

    signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
