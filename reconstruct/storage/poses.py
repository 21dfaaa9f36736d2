"""Text lists of poses: ``name qw qx qy qz tx ty tz`` a line, camera from world.

The quaternion is of unit length; a name may hold spaces, as the last seven words are the pose.
Comments start with ``# ``; so does no name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.errors import ArtifactError
from reconstruct.geometry import quaternion, rotation_matrix
from reconstruct.workspace import atomic_path


def write_poses(path: Path, poses: Mapping[str, NDArray[Any]]) -> None:
    """Write (3, 4) cam_from_world by name, sorted, with all digits, atomically."""
    with atomic_path(path) as temporary:
        lines = [pose_line(name, poses[name]) + "\n" for name in sorted(poses)]
        temporary.write_text("".join(lines), encoding="utf-8")


def pose_line(name: str, cam_from_world: NDArray[Any]) -> str:
    """The line ``name qw qx qy qz tx ty tz`` of a (3, 4) pose."""
    numbers = [*quaternion(cam_from_world[:, :3]), *cam_from_world[:, 3]]
    return " ".join([name, *(f"{value:.17g}" for value in numbers)])


def read_poses(path: Path) -> dict[str, NDArray[np.float64]]:
    """Name -> (3, 4) cam_from_world. Raises ArtifactError naming the line that is not a pose."""
    try:
        # Not splitlines, which also cuts at characters that a name may hold.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: cannot be read as a list of poses ({error})") from error
    poses: dict[str, NDArray[np.float64]] = {}
    for number, line in enumerate(lines, 1):
        if line.strip() and not _is_comment(line):
            name, values = parse_pose_line(line, f"{path}:{number}")
            rotation = rotation_matrix(values[:4])
            poses[name] = np.column_stack([rotation, values[4:]])
    return poses


def parse_pose_line(line: str, where: str) -> tuple[str, NDArray[np.float64]]:
    """Name and numbers of a line.

    Args:
        line: ``name qw qx qy qz tx ty tz``.
        where: File and line number, for the message of an error.

    Returns:
        The name, and the (7,) numbers qw, qx, qy, qz, tx, ty, tz.

    Raises:
        ArtifactError: The line is not a pose, or its quaternion is zero.
    """
    name, *numbers = line.rstrip().rsplit(maxsplit=7) or [""]
    try:
        values = np.array([float(word) for word in numbers])
    except ValueError:
        values = np.empty(0)
    if len(values) != 7 or not name or not np.isfinite(values).all() or not values[:4].any():
        raise ArtifactError(f"{where}: expected `name qw qx qy qz tx ty tz`, got {line!r}")
    return name, values


def _is_comment(line: str) -> bool:
    """``# text``, and ``#text`` unless seven numbers follow: the pose of an image named so."""
    if not line.startswith("#") or line.startswith("# "):
        return line.startswith("#")
    try:
        parse_pose_line(line, "")
    except ArtifactError:
        return True
    return False
