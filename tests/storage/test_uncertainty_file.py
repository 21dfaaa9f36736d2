from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reconstruct.errors import ArtifactError
from reconstruct.storage.uncertainty import read_uncertainty, write_uncertainty


def test_names_and_numbers_come_back(tmp_path: Path) -> None:
    path = tmp_path / "uncertainty.txt"
    covariances = np.stack([np.diag([4.0, 4.0, 1.0]), np.eye(3) / 3])
    write_uncertainty(path, ["# a b.jpg", "c.jpg"], covariances, np.array([0.25, 2.0]))
    found = read_uncertainty(path)
    assert {name: tuple(deviation) for name, deviation in found.items()} == {
        "# a b.jpg": (3.0, 0.25),
        "c.jpg": (1.0, 2.0),
    }
    assert "./# a b.jpg 3 0.25 4 0 0 4 0 1\n" in path.read_text()
    assert read_uncertainty(tmp_path / "none.txt") == {}


def test_a_line_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "uncertainty.txt"
    path.write_text("# head\na.jpg 1 2 3\n")
    with pytest.raises(ArtifactError, match=r"uncertainty\.txt:2: expected a name and 8 numbers"):
        read_uncertainty(path)
