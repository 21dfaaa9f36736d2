"""The submission file of visuallocalization.net: lines ``basename qw qx qy qz tx ty tz``.

Poses are camera from world; a query that was not localized is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct.errors import ArtifactError, DataError
from reconstruct.storage.poses import parse_pose_line, write_poses


def write_submission(path: Path, poses: Mapping[str, NDArray[Any]]) -> None:
    """Write (3, 4) poses by image name. Raises DataError if two images have the same basename."""
    named: dict[str, NDArray[Any]] = {}
    for name, pose in sorted(poses.items()):
        base = PurePosixPath(name).name
        if base in named:
            raise DataError(
                f"two localized queries are named {base}: the server knows basenames only"
            )
        named[base] = pose
    write_poses(path, named)


def check_submission(path: Path, queries: Collection[str]) -> list[str]:
    """Problems that the server would reject or count as failed; empty if the file is valid.

    Args:
        path: The submission file.
        queries: Names of all images that were to be localized.

    Returns:
        A sentence per problem.

    Raises:
        ArtifactError: The file cannot be read at all.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error})") from error
    expected = {PurePosixPath(name).name for name in queries}
    problems: list[str] = []
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        try:
            name, values = parse_pose_line(line, f"line {number}")
        except ArtifactError as error:
            problems.append(str(error))
            continue
        if name in seen:
            problems.append(f"line {number}: {name} is there twice")
        if name not in expected:
            problems.append(f"line {number}: {name} is no query")
        if abs(float(np.linalg.norm(values[:4])) - 1.0) > 1e-3:
            problems.append(f"line {number}: the quaternion of {name} is not of unit length")
        seen.add(name)
    return problems
