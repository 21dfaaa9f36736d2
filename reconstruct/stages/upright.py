"""Models that stand upright: z is up, by measured gravity or as cameras were held."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np

from reconstruct import colmap
from reconstruct.config import NotIdentity, Section
from reconstruct.datasets import Dataset
from reconstruct.datasets.accelerometer import gravity_at_rest
from reconstruct.datasets.gimbal import noted_gravity
from reconstruct.datasets.gps import EXIF
from reconstruct.errors import EstimationError, UsageError
from reconstruct.evaluation.upright import (
    HeldCameras,
    rotation_to_z,
    up_of_gravity,
    up_of_level_cameras,
)
from reconstruct.files import read_text
from reconstruct.fingerprints import fingerprint
from reconstruct.geometry import Float64
from reconstruct.stages.georegister import DOWN, orientation

logger = logging.getLogger(__name__)

COLUMNS = ["name", "x", "y", "z"]
LIMIT_BYTES = 1 << 28


class UprightConfig(Section):
    """Turn models so that z is up."""

    gravity: Annotated[str | None, NotIdentity] = None
    """CSV file ``name,x,y,z``: the direction of gravity in the axes of a photo's camera as the
    picture is stored (x right, y down, z ahead), of any length. `exif`: what photos note, the pitch
    of the gimbal of DJI's drones or the acceleration of an iPhone. null: most photos were held
    level from left to right, turned as their EXIF orientation says."""


def turn_upright(
    model: colmap.Reconstruction, dataset: Dataset, gravity: Mapping[str, Float64] | None
) -> None:
    """Turn a model about its origin, in place, so that z is up.

    Where its cameras do not tell, it stays as it is, and the log says so.

    Args:
        model: The model.
        dataset: Its photos, whose EXIF data tell how they were held.
        gravity: Name -> (3,) direction of gravity in the camera; None: cameras were held level.
    """
    poses = colmap.model_poses(model)
    try:
        if gravity is None:
            up = up_of_level_cameras(_held(dataset, poses))
        else:
            known = [poses[n][:, :3].T @ gravity[n] for n in sorted(poses) if n in gravity]
            up = up_of_gravity(np.array(known).reshape(-1, 3))
    except EstimationError as error:
        logger.warning("map: a model of %d photos is not turned upright: %s", len(poses), error)
        return
    colmap.transform_model(model, 1.0, rotation_to_z(up), np.zeros(3))


def _held(dataset: Dataset, poses: Mapping[str, Float64]) -> HeldCameras:
    level, below, ahead = [], [], []
    for name in sorted(poses):
        axis, sign = DOWN.get(orientation(dataset, name), (1, 1))
        x_y_z = poses[name][:, :3]
        level.append(x_y_z[1 - axis])
        below.append(sign * x_y_z[axis])
        ahead.append(x_y_z[2])
    parts = (np.array(part).reshape(-1, 3) for part in (level, below, ahead))
    return HeldCameras(**dict(zip(("level", "below", "ahead"), parts, strict=True)))


def read_gravity(config: UprightConfig, dataset: Dataset) -> dict[str, Float64] | None:
    """The table of a section, or what photos note, by the names of the photos; None: neither.

    Raises UsageError naming the line that is wrong, or if it is about other photos.
    """
    if config.gravity is None:
        return None
    if config.gravity == EXIF:
        return _noted(dataset)
    path = Path(config.gravity)
    try:
        lines = csv.reader(read_text(path, LIMIT_BYTES).removeprefix("\ufeff").splitlines())
        table = dict(_row(path, line, lines.line_num) for line in lines if line)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: not a CSV file {','.join(COLUMNS)} ({error})") from error
    listed = {name: table.get(dataset.original(name), table.get(name)) for name in dataset.names}
    found = {name: vector for name, vector in listed.items() if vector is not None}
    if not found:
        raise UsageError(
            f"{path}: none of the photos is in this table (map.upright.gravity); names are "
            f"relative to the folder of the photos, e.g. {dataset.original(dataset.names[0])}"
        )
    return found


def _noted(dataset: Dataset) -> dict[str, Float64]:
    found: dict[str, Float64] = {}
    for name in dataset.names:
        for noted in (noted_gravity, gravity_at_rest):
            vector = noted(dataset.path(name))
            if vector is not None:
                found[name] = vector
                break
    if not found:
        raise UsageError(
            "map.upright.gravity: exif, but none of the photos notes gravity, as those of DJI's "
            "drones and of iPhones do; give a table, or leave `gravity` out"
        )
    return found


def gravity_identity(gravity: Mapping[str, Float64] | None) -> str:
    """Fingerprint of what `read_gravity` found."""
    rows = [] if gravity is None else [[name, *v.tolist()] for name, v in sorted(gravity.items())]
    return fingerprint("gravity", rows)


def _row(path: Path, cells: list[str], number: int) -> tuple[str, Float64 | None]:
    texts = [cell.strip() for cell in cells]
    if number == 1:
        if [text.lower() for text in texts] != COLUMNS:
            raise UsageError(f"{path}: the first line is {','.join(COLUMNS)}, got {texts}")
        return "", None
    try:
        name, *values = texts
        vector = np.array([float(value) for value in values])
        if vector.shape == (3,) and 1e-6 < math.hypot(*vector) < 1e6:
            return name, vector / math.hypot(*vector)
    except ValueError:
        pass
    raise UsageError(
        f"{path}, line {number}: expected a name and three numbers that are not all 0, got "
        f"{','.join(cells)[:200]!r}"
    )
