"""poses.txt: seven numbers behind a name that may hold spaces."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

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


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).map(
    lambda text: f"{text}.jpg"
)


@given(NAMES)
@example("#1 [x].jpg")
@example(" # a.jpg")
@example("a\u2028b.jpg")
def test_every_name_comes_back(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "poses.txt"
        write_poses(path, {name: TURNED})
        assert list(read_poses(path)) == [name]


def test_a_commented_pose_is_none_and_a_rounded_one_is_brought_to_unit_length(
    tmp_path: Path,
) -> None:
    path = tmp_path / "poses.txt"
    path.write_text("#a.jpg 1 0 0 0 1 2 3\n  b.jpg 0.7071 0 0 0.7071 1 2 3\r\n")
    ((name, pose),) = read_poses(path).items()
    assert name == "b.jpg"
    np.testing.assert_allclose(pose, TURNED, atol=1e-12)


@pytest.mark.parametrize("quaternion", ["2 0 0 0", "0.1 0.1 0.1 0.1", "1e200 1e200 0 0"])
def test_a_quaternion_far_from_unit_length_is_refused(tmp_path: Path, quaternion: str) -> None:
    path = tmp_path / "poses.txt"
    path.write_text(f"a.jpg {quaternion} 1 2 3\n")
    with pytest.raises(ArtifactError, match=r"poses\.txt:1: the quaternion has length"):
        read_poses(path)


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


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nowhere"):
        read_poses(tmp_path / "nowhere.txt")
