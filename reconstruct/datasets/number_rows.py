"""Text files of numbers, as ground truth is often published."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reconstruct.config import shown
from reconstruct.errors import DataError
from reconstruct.files import read_text
from reconstruct.geometry import Float64


def read_rows(path: Path, columns: int) -> Float64:
    """(R, columns) finite numbers, separated by white space, R >= 1; blank lines are skipped.

    Raises DataError naming the file and the line.
    """
    try:
        lines = read_text(path).split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text ({error})") from error
    rows = [
        _numbers(line, columns, f"{path}:{number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not rows:
        raise DataError(f"{path}: empty; expected rows of {columns} numbers")
    return np.array(rows, np.float64)


def _numbers(line: str, columns: int, where: str) -> list[float]:
    try:
        values = [float(word) for word in line.split()]
    except ValueError:
        values = []
    if len(values) != columns or not np.isfinite(values).all():
        raise DataError(f"{where}: expected {columns} finite numbers, got {shown(line)}")
    return values
