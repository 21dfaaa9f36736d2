"""uncertainty.txt beside a model: how far each of its poses may be off.

    name position rotation xx xy xz yy yz zz

a line: root mean squares of what lies between a camera centre, and a rotation, and the truth, in
the unit of the model and in degrees; then the covariance of the centre in the frame of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from reconstruct.errors import ArtifactError
from reconstruct.files import read_text
from reconstruct.storage.names import listed_name, name_in_list

HEAD: Final = "# name position rotation_deg covariance: xx xy xz yy yz zz\n"
NUMBERS: Final = 8


class Deviation(NamedTuple):
    """Expected root mean square errors of a pose: in the model's unit, and in degrees."""

    position: float
    rotation_deg: float


def write_uncertainty(
    path: Path,
    names: Sequence[str],
    position_covariances: NDArray[Any],
    rotation_sigmas_deg: NDArray[Any],
) -> None:
    """Write (I, 3, 3) covariances of camera centres and (I,) deviations of rotations."""
    lines = [HEAD]
    rows = zip(names, position_covariances, rotation_sigmas_deg, strict=True)
    for name, covariance, rotation_deg in rows:
        position = np.sqrt(max(np.trace(covariance), 0.0))
        numbers = [position, rotation_deg, *covariance[np.triu_indices(3)]]
        lines.append(" ".join([listed_name(name), *(f"{n:.6g}" for n in numbers)]) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def read_uncertainty(path: Path) -> dict[str, Deviation]:
    """Name -> expected errors of its pose; empty if there is no file.

    Raises ArtifactError naming the line that is not one.
    """
    try:
        lines = read_text(path).split("\n")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error})") from error
    found: dict[str, Deviation] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        words = line.rsplit(maxsplit=NUMBERS)
        try:
            values = [float(word) for word in words[1:]]
        except ValueError:
            values = []
        if len(values) != NUMBERS:
            raise ArtifactError(f"{path}:{number}: expected a name and {NUMBERS} numbers")
        found[name_in_list(words[0])] = Deviation(*values[:2])
    return found
