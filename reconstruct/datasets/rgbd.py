"""Photos of a map with a 3D point for each pixel: the part of a data set that holds RGB-D scans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from reconstruct import colmap
from reconstruct.datasets.scene import PinholeCamera, View, back_project
from reconstruct.errors import ImageError
from reconstruct.files import read_bytes
from reconstruct.geometry import Float64, projection_center
from reconstruct.types import FloatArray


class RgbdImages(Protocol):
    """The images of an RGB-D map, by name."""

    @property
    def names(self) -> tuple[str, ...]:
        """Sorted names."""

    def place(self, name: str) -> str:
        """The place that the image belongs to: images of one place were scanned together, and may
        be rendered together."""

    def files(self, name: str) -> tuple[Path, ...]:
        """The files that decide `xyz`."""

    def identity(self, name: str) -> list[float]:
        """The numbers that decide `xyz`, beside the files."""

    def center(self, name: str) -> Float64:
        """(3,) position of the camera (or of the scanner)."""

    def xyz(self, name: str) -> FloatArray:
        """(H, W, 3) world points in metres at the pixels' centres, NaN where there is none.

        The grid covers the photo; it need not have its size. Raises ImageError naming the file.
        """


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DepthImages:
    """Depth images with known cameras and poses. All of them are one place.

    folder: contains the depth of image ``a/b.jpg`` as ``a/b.png``: uint16, ``unit_m`` metres each
    along the optical axis, 0 where there is none. cameras: COLMAP's PINHOLE or SIMPLE_PINHOLE.
    """

    folder: Path
    poses: Mapping[str, Float64]
    cameras: Mapping[str, colmap.Camera]
    unit_m: float

    @property
    def names(self) -> tuple[str, ...]:
        """Sorted names."""
        return tuple(sorted(self.poses))

    def place(self, name: str) -> str:
        """The same for all images."""
        return "scene"

    def files(self, name: str) -> tuple[Path, ...]:
        """The depth image; see `RgbdImages.files`."""
        return (depth_file(self.folder, name),)

    def identity(self, name: str) -> list[float]:
        """Unit, intrinsics and pose; see `RgbdImages.identity`."""
        camera = self.cameras[name]
        return [self.unit_m, *map(float, camera.params), *self.poses[name].ravel().tolist()]

    def center(self, name: str) -> Float64:
        """(3,) position of the camera."""
        return projection_center(self.poses[name])

    def xyz(self, name: str) -> FloatArray:
        """(H, W, 3) world points; see `RgbdImages.xyz`."""
        depth = read_depth(depth_file(self.folder, name), self.unit_m)
        known = self.cameras[name]
        k, (rows, columns) = known.calibration_matrix(), depth.shape
        # The depth image covers the photo, at its own size.
        across, down = columns / known.width, rows / known.height
        camera = PinholeCamera(
            width=columns,
            height=rows,
            fx=float(k[0, 0]) * across,
            fy=float(k[1, 1]) * down,
            cx=float(k[0, 2]) * across,
            cy=float(k[1, 2]) * down,
        )
        view = View(name=name, camera=camera, cam_from_world=self.poses[name])
        return np.asarray(back_project(view, depth), np.float32)


def depth_file(folder: Path, name: str) -> Path:
    """The file with the depth of an image."""
    return (folder / name).with_suffix(".png")


def read_depth(path: Path, unit_m: float) -> FloatArray:
    """(H, W) metres, 0 where there is no depth. Raises ImageError naming the file."""
    try:
        stored = cv2.imdecode(
            np.frombuffer(read_bytes(path, 1 << 31), np.uint8), cv2.IMREAD_UNCHANGED
        )
    except (OSError, cv2.error) as error:
        raise ImageError(f"{path}: no readable depth image ({error})") from error
    if stored is None or stored.ndim != 2 or stored.dtype != np.uint16:
        raise ImageError(f"{path}: expected a depth image of one 16-bit channel")
    return np.asarray(stored, np.float32) * np.float32(unit_m)


def transform_points(
    target_from_source: NDArray[np.float64], points: NDArray[np.floating]
) -> Float64:
    """(..., 3) points transformed by a (3, 4) or (4, 4) rigid transform."""
    return np.asarray(points @ target_from_source[:3, :3].T + target_from_source[:3, 3])
