"""Loaded by Dask workers when they start: ``dask worker --preload reconstruct.preload``.

COLMAP's library, loaded in the main thread, does not answer SIGTERM itself (see stopping.py), and
the first chunk need not wait for it.
"""

from __future__ import annotations

from typing import Any


def dask_setup(worker: Any) -> None:
    """Load what all stages need."""
    import torch  # noqa: F401

    import reconstruct.stages.verify  # noqa: F401 - pycolmap
