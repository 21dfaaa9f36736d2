"""``gsplat``: what trainers of 3D Gaussian splatting load.

    images/NAME (undistorted)  sparse/0/{cameras,images,points3D}.bin (PINHOLE)

the layout of the authors' convert.py (Kerbl et al., 2023), of gsplat's examples and others.
"""

from __future__ import annotations

from pathlib import Path

from reconstruct import colmap
from reconstruct.atomic import remove
from reconstruct.export.result import Result


def write(result: Result, target: Path) -> None:
    """Write undistorted photos and their model."""
    images = result.images
    workspace = target.with_name(f"{target.name}-dense")
    try:
        colmap.undistort(result.workspace.sparse, images, workspace)
        target.mkdir()
        (workspace / "images").rename(target / "images")
        (target / "sparse").mkdir()
        (workspace / "sparse").rename(target / "sparse" / "0")
    finally:
        remove(workspace)
