"""``colmap``: a dense workspace, as COLMAP's image_undistorter leaves it.

    images/NAME  sparse/  stereo/{patch-match,fusion}.cfg  run-colmap-*.sh

for ``colmap patch_match_stereo`` and OpenMVS's InterfaceCOLMAP.
"""

from __future__ import annotations

from pathlib import Path

from reconstruct import colmap
from reconstruct.export.result import Result


def write(result: Result, target: Path) -> None:
    """Write undistorted photos, their PINHOLE model, and the lists for stereo."""
    images = result.images
    colmap.undistort(result.workspace.sparse, images, target)
