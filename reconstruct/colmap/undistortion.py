"""Photos and models without lens distortion."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

from reconstruct.atomic import reserve
from reconstruct.colmap.models import model_poses, read_model
from reconstruct.errors import DataError, UsageError

JPEG_QUALITY = 97
"""COLMAP's own default of 75 would show in what is trained on the photos."""

MARGIN_BYTES = 1 << 20
"""More than COLMAP writes at once."""
UNREADABLE = 3
"""Exit status of `PROGRAM` where COLMAP says why it cannot."""
PROGRAM = f"""
import sys, pycolmap
pycolmap.logging.minloglevel = 2
try:
    pycolmap.undistort_images(*sys.argv[1:], jpeg_quality={JPEG_QUALITY})
except (RuntimeError, ValueError) as error:
    print(error)
    sys.exit({UNREADABLE})
"""


def undistort(model: Path, images: Path, target: Path) -> None:
    """Write a dense workspace: photos without distortion, their model, and lists for stereo.

    COLMAP works in a process of its own, which libjpeg ends where the disk is full.

    Cameras become PINHOLE; photos of cameras without distortion are copied as they are. Focal
    lengths stay; sizes change with the distortion.

    Args:
        model: a COLMAP model folder. images: folder to which its names are relative.
        target: new folder, filled with ``images/``, ``sparse/`` and ``stereo/``.

    Raises:
        DataError: a photo or the model cannot be read.
        OSError: the photos cannot be written.
    """
    command = [sys.executable, "-c", PROGRAM, str(target), str(model), str(images)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == UNREADABLE:
        told = done.stdout.strip()
        raise DataError(f"{images}: COLMAP cannot undistort these photos ({told})")
    if done.returncode != 0:
        raise OSError(errno.EIO, "COLMAP ended while it wrote photos", str(target))
    # COLMAP does not notice that the disk is full. What it could not write then has no room now.
    reserve(target, MARGIN_BYTES)
    try:
        written = read_model(target / "sparse")
    except UsageError as error:
        raise OSError(errno.EIO, "COLMAP's model was cut off", str(target)) from error
    for name in model_poses(written):
        if not (target / "images" / name).is_file():  # COLMAP passes it over
            raise DataError(f"{images / name}: COLMAP cannot read this photo; replace or remove it")
