"""Text lists of poses: ``name qw qx qy qz tx ty tz`` a line, camera from world.

The quaternion is written with unit length, and brought to it when read: it may have been rounded.
A name may hold spaces, as the last seven words are the pose; see `reconstruct.storage.names`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.atomic import atomic_path
from reconstruct.config import shown
from reconstruct.errors import ArtifactError
from reconstruct.files import read_text
from reconstruct.geometry import quaternion, rotation_matrix
from reconstruct.storage.names import listed_name, name_in_list

UNIT_TOLERANCE = 0.05
"""How far from 1 the length of a quaternion may be: more is no rounding, but another column."""


def write_poses(path: Path, poses: Mapping[str, NDArray[Any]]) -> None:
    """Write (3, 4) cam_from_world by name, sorted, with all digits, atomically."""
    with atomic_path(path) as temporary:
        lines = [pose_line(name, poses[name]) + "\n" for name in sorted(poses)]
        temporary.write_text("".join(lines), encoding="utf-8")


def pose_line(name: str, cam_from_world: NDArray[Any]) -> str:
    """The line ``name qw qx qy qz tx ty tz`` of a (3, 4) pose."""
    numbers = [*quaternion(cam_from_world[:, :3]), *cam_from_world[:, 3]]
    return " ".join([listed_name(name), *(f"{value:.17g}" for value in numbers)])


def read_poses(path: Path) -> dict[str, NDArray[np.float64]]:
    """Name -> (3, 4) cam_from_world. Raises ArtifactError naming the line that is not a pose."""
    try:
        lines = read_text(path).split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: cannot be read as a list of poses ({error})") from error
    poses: dict[str, NDArray[np.float64]] = {}
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            name, values = parse_pose_line(line, f"{path}:{number}")
            rotation = rotation_matrix(_unit(values[:4], f"{path}:{number}"))
            poses[name] = np.column_stack([rotation, values[4:]])
    return poses


def _unit(quaternion: NDArray[np.float64], place: str) -> NDArray[np.float64]:
    length = math.hypot(*quaternion)
    if abs(length - 1.0) > UNIT_TOLERANCE:
        raise ArtifactError(
            f"{place}: the quaternion has length {length:.3g} and not 1; expected `name qw qx qy "
            "qz tx ty tz`"
        )
    return quaternion / length


def parse_pose_line(line: str, place: str) -> tuple[str, NDArray[np.float64]]:
    """The name and the seven numbers of a line.

    Raises ArtifactError, as for a zero quaternion; other lengths are the caller's business.
    """
    name, *numbers = line.rstrip().rsplit(maxsplit=7) or [""]
    try:
        values = np.array([float(word) for word in numbers])
    except ValueError:
        values = np.empty(0)
    if len(values) != 7 or not name or not np.isfinite(values).all() or not values[:4].any():
        raise ArtifactError(f"{place}: expected `name qw qx qy qz tx ty tz`, got {shown(line)}")
    return name_in_list(name), values
