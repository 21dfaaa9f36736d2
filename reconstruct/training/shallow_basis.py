"""The directions on which `reconstruct.features.shallow` projects, from photos:

python -m reconstruct.training.shallow_basis PHOTOS FILE.safetensors
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch.nn import functional as F

from reconstruct.features.shallow import CHANNELS, conv2_2
from reconstruct.geometry import Float64
from reconstruct.images import read_image


def principal_directions(
    vectors: Iterable[NDArray[np.float32]], count: int
) -> tuple[Float64, Float64]:
    """Mean (D,) of (N_i, D) vectors, and their first principal directions (count, D), each divided
    by the fourth root of its variance relative to the first's. The largest entry is positive."""
    total, moment, number = np.zeros(1), np.zeros((1, 1)), 0
    for block in vectors:
        values = np.asarray(block, np.float64)
        total, moment = total + values.sum(0), moment + values.T @ values
        number += len(values)
    mean = total / number
    variances, directions = np.linalg.eigh(moment / number - np.outer(mean, mean))
    variances, directions = variances[::-1][:count], directions[:, ::-1][:, :count].T
    largest = np.take_along_axis(directions, np.abs(directions).argmax(1)[:, None], 1)
    scaled = directions * np.sign(largest) * (variances[0] / variances[:, None]) ** 0.25
    return mean, scaled


def main() -> None:
    """Read all photos of a folder and write the basis."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    paths = sorted(arguments.photos.glob("*.jpg"))

    def cells(path: Path) -> NDArray[np.float32]:
        maps = torch.cat(list(conv2_2(read_image(path), torch.device("cpu"))), dim=1)
        return F.normalize(maps, dim=0).flatten(1).T.numpy()

    mean, basis = principal_directions(map(cells, paths), CHANNELS)
    columns = {"mean": mean.astype(np.float32), "basis": basis.astype(np.float32)}
    save_file(columns, arguments.file)


if __name__ == "__main__":
    main()
