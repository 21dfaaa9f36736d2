"""VisualSFM's NVM_V3 models, the format of Aachen Day-Night's reference.

    <camera> = name focal qw qx qy qz cx cy cz radial 0      the centre, not the translation
    <point>  = x y z r g b n  n x (image feature u v)

Format: http://ccwu.me/vsfm/doc.html#nvm. A space in a name is written as ``"``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reconstruct.errors import UsageError
from reconstruct.files import read_text
from reconstruct.geometry import projection_center, quaternion, rotation_matrix
from reconstruct.storage.poses import UNIT_TOLERANCE


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NvmCamera:
    """A photo of the model.

    Attributes:
        name: Name of the photo.
        focal_px: Focal length.
        cam_from_world: (3, 4).
        radial: VisualSFM's normalised coefficient r, which maps measured to ideal positions, ideal
            = (1 + r |m / f|^2) m; COLMAP's k goes the other way and is -r to first order.
    """

    name: str
    focal_px: float
    radial: float
    cam_from_world: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NvmModel:
    """The first model of a file, in its order.

    Attributes:
        cameras: The photos.
        xyz: (P, 3) positions of points.
        observations: (K, 2) int64, index of the point and of the camera.
        positions: (K, 2) pixels of the observations, as in the file.
    """

    cameras: tuple[NvmCamera, ...]
    xyz: NDArray[np.float64]
    observations: NDArray[np.int64]
    positions: NDArray[np.float64]


def read_nvm(path: Path) -> NvmModel:
    """Read an .nvm file. Raises UsageError naming the line that cannot be parsed."""
    reader = _Rows(path)
    if not next(reader, "").startswith("NVM_V3"):
        raise UsageError(f"{path}: not an NVM model (expected NVM_V3 in its first line)")
    try:
        cameras = tuple(_camera(next(reader)) for _ in range(int(next(reader))))
        xyz: list[list[float]] = []
        observations: list[tuple[int, int]] = []
        positions: list[tuple[float, float]] = []
        for point in range(int(next(reader, "0"))):  # a model without points may end here
            words = next(reader).split()
            xyz.append([float(words[axis]) for axis in range(3)])
            for start in range(7, 7 + 4 * int(words[6]), 4):
                image, _, u, v = words[start : start + 4]
                if not 0 <= int(image) < len(cameras):
                    raise ValueError(f"point {point} is seen by camera {image}, which is not there")
                observations.append((point, int(image)))
                positions.append((float(u), float(v)))
    except (StopIteration, RuntimeError) as error:  # a generator turns the first into the second
        raise UsageError(f"{path}: ends before all its cameras and points") from error
    except (ValueError, IndexError, OverflowError) as error:
        raise UsageError(
            f"{path}:{reader.number}: not understood as a row of an NVM model ({error})"
        ) from error
    if not np.isfinite([*itertools.chain(*xyz)]).all():
        raise UsageError(f"{path}: a point is not at a finite position")
    return NvmModel(
        cameras=cameras,
        xyz=np.array(xyz, np.float64).reshape(-1, 3),
        observations=np.array(observations, np.int64).reshape(-1, 2),
        positions=np.array(positions, np.float64).reshape(-1, 2),
    )


class _Rows(Iterator[str]):
    """The lines of a text file that are not blank; ``number`` is that of the last one."""

    def __init__(self, path: Path) -> None:
        try:
            self._lines = enumerate(read_text(path).split("\n"), 1)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: cannot be read as an NVM model ({error})") from error
        self.number = 0

    def __next__(self) -> str:
        line = ""
        while not line.strip():
            self.number, line = next(self._lines)
        return line


def _camera(line: str) -> NvmCamera:
    name, *words = line.split()
    focal, qw, qx, qy, qz, cx, cy, cz, radial, *_ = (float(word) for word in words)
    if not np.isfinite([focal, cx, cy, cz, radial]).all() or focal <= 0:
        raise ValueError(f"{name}: numbers must be finite, and the focal length above 0")
    length = math.hypot(qw, qx, qy, qz)
    if not abs(length - 1.0) <= UNIT_TOLERANCE:
        raise ValueError(f"{name}: its quaternion has length {length:.3g}, not 1")
    rotation = rotation_matrix(np.array([qw, qx, qy, qz]))
    return NvmCamera(
        name=name.replace('"', " "),
        focal_px=focal,
        radial=radial,
        cam_from_world=np.column_stack([rotation, -rotation @ [cx, cy, cz]]),
    )


def write_nvm(path: Path, model: NvmModel) -> None:
    """Write a model with all digits; feature indices count the observations of each camera."""
    lines = ["NVM_V3", "", str(len(model.cameras))]
    for camera in model.cameras:
        pose = camera.cam_from_world
        numbers = (camera.focal_px, *quaternion(pose[:, :3]), *projection_center(pose))
        text = " ".join(f"{value:.17g}" for value in (*numbers, camera.radial))
        lines.append(f"{camera.name.replace(' ', chr(34))} {text} 0")
    lines += ["", str(len(model.xyz))]
    features = [0] * len(model.cameras)
    tracks: list[list[str]] = [[] for _ in model.xyz]
    for (point, image), (u, v) in zip(model.observations, model.positions, strict=True):
        tracks[point].append(f"{image} {features[image]} {u:.9g} {v:.9g}")
        features[image] += 1
    for xyz, track in zip(model.xyz, tracks, strict=True):
        where = " ".join(f"{value:.17g}" for value in xyz)
        lines.append(" ".join([where, "128 128 128", str(len(track)), *track]))
    path.write_text("\n".join([*lines, "", "0", ""]), encoding="utf-8")
