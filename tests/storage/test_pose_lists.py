"""poses.txt: seven numbers behind a name that may hold spaces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reconstruct.datasets.scene import look_at
from reconstruct.errors import ArtifactError
from reconstruct.storage.poses import pose_line, read_poses, write_poses

TURNED = np.array([[0.0, -1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 2.0], [0.0, 0.0, 1.0, 3.0]])


def test_line_of_a_quarter_turn_about_z() -> None:
    name, *numbers = pose_line("a.jpg", TURNED).split()
    half = np.sqrt(0.5)
    assert name == "a.jpg"
    np.testing.assert_allclose([float(n) for n in numbers], [half, 0, 0, half, 1, 2, 3], atol=1e-15)


def test_round_trip_keeps_all_digits_and_any_name(tmp_path: Path) -> None:
    poses = {"b c/ä.jpg": look_at((1, 2, 3), (0, 0.5, 2)), "a.jpg": TURNED}
    write_poses(tmp_path / "poses.txt", poses)
    read = read_poses(tmp_path / "poses.txt")
    assert list(read) == ["a.jpg", "b c/ä.jpg"]
    for name, pose in poses.items():
        np.testing.assert_allclose(read[name], pose, atol=1e-14)


def test_no_pose_at_all(tmp_path: Path) -> None:
    write_poses(tmp_path / "poses.txt", {})
    assert read_poses(tmp_path / "poses.txt") == {}


@pytest.mark.parametrize(
    "line", ["a.jpg 1 0 0 0 1 2", "a.jpg 0 0 0 0 1 2 3", "a.jpg 1 0 0 0 x 2 3", "a 1 0 0 0 nan 2 3"]
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "poses.txt"
    path.write_text(f"# poses\n\n{line}\n")
    with pytest.raises(ArtifactError, match=r"poses\.txt:3"):
        read_poses(path)


def test_comments_and_names_that_look_like_them(tmp_path: Path) -> None:
    (tmp_path / "poses.txt").write_text(
        "# a comment\n#another, of eight words or even some more\n# off.jpg 1 0 0 0 1 2 3\n"
        "#1.jpg 1 0 0 0 1 2 3\n"
    )
    assert list(read_poses(tmp_path / "poses.txt")) == ["#1.jpg"]


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nowhere"):
        read_poses(tmp_path / "nowhere.txt")
