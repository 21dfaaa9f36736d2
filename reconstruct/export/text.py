"""``text``: COLMAP's text model."""

from __future__ import annotations

from pathlib import Path

from reconstruct import colmap
from reconstruct.errors import UsageError
from reconstruct.export.result import Result


def write(result: Result, target: Path) -> None:
    """Write cameras.txt, images.txt ... Raises UsageError for a name that they cannot hold."""
    for name in colmap.model_poses(result.model):
        if " " in name:
            raise UsageError(
                f"COLMAP's text format cannot hold the name {name!r}: readers cut it at the space; "
                "use sparse/ as it is, or rename the photo and run again"
            )
    colmap.write_text_model(result.model, target)
