"""``ply``: the points of the model with their colours."""

from __future__ import annotations

from pathlib import Path

from reconstruct import colmap
from reconstruct.export.result import Result


def write(result: Result, target: Path) -> None:
    """Write the points to a PLY file, in the coordinates of the model."""
    colmap.write_points(result.model, target)
