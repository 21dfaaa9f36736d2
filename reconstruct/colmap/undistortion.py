"""Photos and models without lens distortion."""

from __future__ import annotations

from pathlib import Path

import pycolmap

from reconstruct.colmap.models import model_poses, read_model
from reconstruct.errors import DataError

JPEG_QUALITY = 97
"""COLMAP's own default of 75 would show in what is trained on the photos."""


def undistort(model: Path, images: Path, target: Path) -> None:
    """Write a dense workspace: photos without distortion, their model, and lists for stereo.

    Cameras become PINHOLE; photos of cameras without distortion are copied as they are. Focal
    lengths stay, sizes change with what the lens had bent.

    Args:
        model: a COLMAP model folder. images: folder to which its names are relative.
        target: new folder, filled with ``images/``, ``sparse/`` and ``stereo/``.

    Raises:
        DataError: a photo or the model cannot be read.
    """
    try:
        pycolmap.undistort_images(target, model, images, jpeg_quality=JPEG_QUALITY)
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{images}: COLMAP cannot undistort these photos ({error})") from error
    for name in model_poses(read_model(target / "sparse")):
        if not (target / "images" / name).is_file():  # COLMAP passes it over
            raise DataError(f"{images / name}: COLMAP cannot read this photo; replace or remove it")
