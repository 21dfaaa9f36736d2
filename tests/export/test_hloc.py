"""features.h5 and matches.h5, read as hloc reads them (hloc/utils/io.py)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from reconstruct import colmap
from reconstruct.errors import UsageError
from reconstruct.export import export
from reconstruct.features.compaction import compact, expand
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.matches import MatchStore, key_pair
from reconstruct.types import LocalFeatures, Matches


def read_keypoints(folder: Path, name: str) -> np.ndarray:
    """As hloc's triangulation reads them: its origin is moved to COLMAP's."""
    with h5py.File(folder / "features.h5") as file:
        return file[name]["keypoints"].__array__() + 0.5


def read_descriptors(folder: Path, name: str) -> np.ndarray:
    """(N, D): hloc keeps them the other way round, and multiplies them as they are."""
    with h5py.File(folder / "features.h5") as file:
        return file[name]["descriptors"].__array__().T


def read_matches(folder: Path, first: str, second: str) -> np.ndarray:
    """(M, 2) indices of a pair, whichever name is first in the file."""
    key, turned = (
        "/".join(name.replace("/", "-") for name in pair)
        for pair in ((first, second), (second, first))
    )
    with h5py.File(folder / "matches.h5") as file:
        reverse = key not in file
        partner = file[turned if reverse else key]["matches0"].__array__()
        scores = file[turned if reverse else key]["matching_scores0"].__array__()
    assert scores.shape == partner.shape
    rows = np.flatnonzero(partner != -1)
    found = np.stack([rows, partner[rows]], -1)
    return found[:, ::-1] if reverse else found


def test_the_same_features_and_matches(output: Path) -> None:
    folder = export(output, "hloc")
    features, matches = FeatureStore(output / "features"), MatchStore(output / "matches")
    with h5py.File(folder / "features.h5") as file:
        for name in features.fingerprints():
            found = features.load(name)
            np.testing.assert_allclose(read_keypoints(folder, name), found.keypoints, atol=1e-4)
            descriptors = expand(found.descriptors)
            np.testing.assert_array_equal(read_descriptors(folder, name), descriptors)
            np.testing.assert_array_equal(file[name]["scores"], found.scores)
            assert tuple(file[name]["image_size"]) == found.image_size
    for first, second in map(key_pair, matches.fingerprints()):
        expected = matches.load((first, second))
        np.testing.assert_array_equal(read_matches(folder, first, second), expected)
        np.testing.assert_array_equal(read_matches(folder, second, first), expected[:, ::-1])
        with h5py.File(folder / "matches.h5") as file:
            scores = file[f"{first}/{second}"]["matching_scores0"].__array__()
        np.testing.assert_array_equal(scores[expected[:, 0]], matches.scores((first, second)))


@pytest.mark.parametrize("encoding", ["uint8", "float16"])
def test_compact_descriptors_compare_as_the_originals(output: Path, encoding: str) -> None:
    store = FeatureStore(output / "features")
    name = sorted(store.fingerprints())[0]
    whole = expand(store.load(name).descriptors)
    small = replace(store.load(name), descriptors=compact(whole, encoding=encoding))
    store.write([store.record(name, store.fingerprints()[name], small)])
    found = read_descriptors(export(output, "hloc"), name)
    assert found.dtype == np.float32
    products = found @ found.T, whole @ whole.T
    np.testing.assert_allclose(*products, atol=0.02)


def test_keypoints_are_those_of_the_model(output: Path) -> None:
    model = colmap.read_model(output / "sparse")
    tracks = colmap.Tracks(model)
    added = [[1.0, 2.0]]  # what the second pass of mapping appends has no descriptor
    moved = {n: np.concatenate([tracks.keypoints(n) + 0.25, added]) for n in tracks.names}
    seen = {n: np.append(tracks.points(n), -1) for n in tracks.names}
    (output / "sparse").rename(output / "before")
    colmap.write_model(colmap.with_observations(model, moved, seen), output / "sparse")
    folder = export(output, "hloc")
    extracted = FeatureStore(output / "features").load(tracks.names[0]).keypoints
    for name in tracks.names:
        found = read_keypoints(folder, name)
        np.testing.assert_allclose(found, moved[name][:-1], atol=1e-4)
    assert np.abs(read_keypoints(folder, tracks.names[0]) - extracted).min() > 0.2


def test_without_a_model_keypoints_are_those_of_the_database(output: Path) -> None:
    (output / "sparse").rename(output / "unmapped")
    before = colmap.database_keypoints(output / "database.db")
    name = sorted(before)[0]
    assignment = colmap.assign_cameras(
        {name: (320, 240)},
        lambda name: None,
        lambda name: colmap.make_camera("SIMPLE_PINHOLE", [300, 160, 120], (320, 240)),
        lambda name: name,
    )
    (output / "database.db").unlink()
    moved = before[name] + np.float32(0.25)
    colmap.write_database(output / "database.db", assignment, lambda name: moved, [])
    found = read_keypoints(export(output, "hloc"), name)
    np.testing.assert_allclose(found, moved, atol=1e-4)


def test_features_that_changed_since_they_were_mapped(output: Path) -> None:
    store = FeatureStore(output / "features")
    name = sorted(store.fingerprints())[0]
    twice = store.load(name)
    twice = twice.select(np.tile(np.arange(len(twice)), 2))
    store.write([store.record(name, "other", twice)])
    with pytest.raises(UsageError, match=f"features of {name} changed since it was mapped"):
        export(output, "hloc")


def _store(output: Path, names: list[str], matches: np.ndarray) -> None:
    store = FeatureStore(output / "features")
    store.write([store.record(name, "f", LocalFeatures.empty((9, 9), 4)) for name in names])
    pairs = MatchStore(output / "matches")
    found = Matches(indices=matches, scores=np.ones(len(matches), np.float32))
    pairs.write([pairs.record((name, "z"), "f", found) for name in names if name != "z"])


def test_it_cannot_tell_some_names_apart(tmp_path: Path) -> None:
    _store(tmp_path, ["a-b.jpg", "a/b.jpg", "z"], np.zeros((0, 2), np.uint32))
    with pytest.raises(UsageError, match=r"another pair of images as 'a-b\.jpg/z'"):
        export(tmp_path, "hloc")


def test_matches_of_features_that_changed(tmp_path: Path) -> None:
    _store(tmp_path, ["a", "z"], np.array([[3, 0]], np.uint32))
    with pytest.raises(UsageError, match="features changed"):
        export(tmp_path, "hloc")
