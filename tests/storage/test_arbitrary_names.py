"""Text lists hold every name that a photo may have: what `list_images` takes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from reconstruct.geometry import rotation_matrix
from reconstruct.storage.matches import key_pair, pair_key, pair_keys
from reconstruct.storage.pairs import ordered, read_pairs, write_pairs
from reconstruct.storage.poses import read_poses, write_poses

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Files are flushed to disk, which would take most of the time."""

CHARACTERS = st.one_of(
    st.sampled_from(" #/.-_\"',\u0085\u2028\u00a0aé写"),
    st.characters(codec="utf-8", min_codepoint=32),
)
NAMES = st.builds("{}{}".format, st.text(CHARACTERS, max_size=8), st.sampled_from([".jpg", ".PNG"]))
NUMBERS = st.floats(-1e6, 1e6)


@st.composite
def poses(draw: st.DrawFn) -> NDArray[np.float64]:
    quaternion = np.array(draw(st.tuples(*[st.floats(-1, 1)] * 4)))
    if np.linalg.norm(quaternion) < 1e-3:
        quaternion = np.array([1.0, 0, 0, 0])
    return np.column_stack([rotation_matrix(quaternion), draw(st.tuples(*[NUMBERS] * 3))])


@given(st.dictionaries(NAMES, poses(), max_size=5))
def test_poses_come_back(written: dict[str, NDArray[np.float64]]) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = Path(folder) / "poses.txt"
        write_poses(path, written)
        read = read_poses(path)
    assert list(read) == sorted(written)
    for name, pose in written.items():
        np.testing.assert_allclose(read[name], pose, atol=1e-14, rtol=0)


@given(st.lists(NAMES, min_size=2, max_size=6, unique=True), st.data())
def test_pairs_come_back(names: list[str], data: st.DataObject) -> None:
    every = [ordered(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    pairs = data.draw(st.lists(st.sampled_from(every), unique=True))
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = Path(folder) / "pairs.txt"
        write_pairs(path, pairs)
        assert read_pairs(path, names) == (sorted(pairs), [])
    keys = [pair_key(pair) for pair in pairs]
    assert list(pair_keys(pairs)) == keys
    assert [key_pair(key) for key in keys] == pairs
