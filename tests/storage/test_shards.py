from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest

from reconstruct.errors import ArtifactError
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.matches import MatchStore, key_pair, pair_key
from reconstruct.storage.shard_file import Record
from reconstruct.storage.shard_writer import ShardWriter, shard_size
from reconstruct.storage.shards import ShardStore
from reconstruct.types import LocalFeatures, Matches

NAMES = ["a/b.jpg", "a-b.jpg", "with space.jpg", "quote\"s'.jpg", "Grüße/写真.jpg", "#1.jpg"]


def record(key: str, value: int, rows: int, fingerprint: str = "f") -> Record:
    fields = {
        "x": np.full((rows, 2), value, np.float32),
        "flags": np.full(3, value, np.uint8),
    }
    return Record(key, fingerprint, fields)


def values(store: ShardStore) -> dict[str, int]:
    return {key: int(store.read(key)["flags"][0]) for key in store.fingerprints()}


def test_records_come_back_as_written(tmp_path: Path) -> None:
    store = ShardStore(tmp_path / "s")
    assert store.fingerprints() == {}
    written = [record(name, i, rows=i % 3, fingerprint=f"f{i}") for i, name in enumerate(NAMES)]
    store.write(written[:4])
    store.write(written[4:])
    for fresh in (store, ShardStore(tmp_path / "s")):
        assert fresh.fingerprints() == {name: f"f{i}" for i, name in enumerate(NAMES)}
        for expected in written:
            found = fresh.read(expected.key)
            assert sorted(found) == sorted(expected.fields)
            for name, array in expected.fields.items():
                np.testing.assert_array_equal(found[name], array, strict=True)
        assert list(fresh.read(NAMES[1], only="x")) == ["x"]
    with pytest.raises(ArtifactError, match="holds nothing for 'other'"):
        store.read("other")


def test_texts_are_of_one_length_and_those_of_older_shards_are_read(tmp_path: Path) -> None:
    store = ShardStore(tmp_path)
    path = store.write([record(name, i, rows=2) for i, name in enumerate(NAMES)])
    with h5py.File(path, "r+") as file:
        assert file["keys"].dtype.kind == file["fingerprints"].dtype.kind == "S"
        for name in ("keys", "fingerprints"):
            found = list(file[name].asstr()[:])
            del file[name]
            file.create_dataset(name, data=found, dtype=h5py.string_dtype("utf-8"))
    older = ShardStore(tmp_path)
    assert older.fingerprints() == dict.fromkeys(NAMES, "f")
    assert values(older) == {name: i for i, name in enumerate(NAMES)}


def test_a_featureless_image_keeps_its_shape_and_type(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    empty = LocalFeatures.empty((640, 480), dim=128)
    store.write([store.record("empty.jpg", "f", empty)])
    found = store.load("empty.jpg")
    assert (found.keypoints.shape, found.descriptors.shape) == ((0, 2), (0, 128))
    assert found.descriptors.dtype == np.float32
    assert found.image_size == (640, 480)


def test_pairs_of_any_names_are_told_apart(tmp_path: Path) -> None:
    pairs = [("a/b.jpg", "c.jpg"), ("a-b.jpg", "c.jpg"), ("a b", "c"), ("a", "b c"), ('"', ",")]
    store = MatchStore(tmp_path)
    matches = [
        Matches(indices=np.full((i, 2), i, np.uint32), scores=np.full(i, 0.5, np.float32))
        for i in range(len(pairs))
    ]
    store.write([store.record(p, "f", m) for p, m in zip(pairs, matches, strict=True)])
    assert [key_pair(pair_key(pair)) for pair in pairs] == pairs
    for pair, expected in zip(pairs, matches, strict=True):
        np.testing.assert_array_equal(store.load(pair), expected.indices, strict=True)
        np.testing.assert_array_equal(store.scores(pair), expected.scores, strict=True)
    for other in ("x", "[]", "3", '["a", "b", "c"]'):
        with pytest.raises(ArtifactError, match="not the key of a pair"):
            key_pair(other)


def test_the_last_record_of_a_key_wins_and_compact_drops_the_others(tmp_path: Path) -> None:
    store = ShardStore(tmp_path)
    store.write([record("a", 1, 5), record("b", 2, 0)])
    store.write([record("c", 3, 1)])
    store.write([record("a", 4, 2, "new"), record("c", 5, 0)])
    expected = {"a": 4, "b": 2, "c": 5}
    assert values(store) == expected
    store.compact()
    assert values(store) == expected
    reopened = ShardStore(tmp_path)
    assert values(reopened) == expected
    assert reopened.fingerprints()["a"] == "new"
    assert len(reopened.read("b")["x"]) == 0
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["part-00000.h5", "part-00002.h5"]
    with h5py.File(tmp_path / "part-00000.h5") as file:
        assert list(file["keys"].asstr()) == ["b"]
    store.write([record("d", 6, 1)])
    assert (tmp_path / "part-00003.h5").exists(), "numbers are never used twice"


def test_discard_forgets_on_disk_too(tmp_path: Path) -> None:
    store = ShardStore(tmp_path)
    store.write([record("a", 1, 1), record("b", 2, 1)])
    store.discard(lambda key: key == "a")
    assert values(store) == values(ShardStore(tmp_path)) == {"b": 2}
    store.discard(lambda key: True)
    assert list(tmp_path.iterdir()) == []


def test_an_unreadable_shard_counts_as_missing_and_goes_with_compact(tmp_path: Path) -> None:
    store = ShardStore(tmp_path)
    paths = [store.write([record(key, i, 1000)]) for i, key in enumerate("abcde")]
    whole = paths[0].read_bytes()
    paths[0].write_bytes(whole[: len(whole) // 2])
    paths[1].write_bytes(b"")
    paths[2].write_text("no HDF5")
    with h5py.File(paths[3], "w") as file:
        file["other layout"] = 1
    reopened = ShardStore(tmp_path)
    assert values(reopened) == {"e": 4}
    reopened.compact()
    assert list(tmp_path.iterdir()) == [paths[4]]


def test_what_became_unreadable_since_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    store = ShardStore(tmp_path)
    path = store.write([record("a", 1, 10)])
    store.fingerprints()
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ArtifactError, match=r"part-00000\.h5: cannot be read .* run again"):
        store.read("a")


def test_a_failing_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    store = ShardStore(tmp_path)
    store.write([record("a", 1, 1)])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            store.write([record("a", 2, 1), record("b", 3, 1)])
    assert values(store) == values(ShardStore(tmp_path)) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["part-00000.h5"]


def test_shards_are_cut_by_number_and_the_rest_is_kept(tmp_path: Path) -> None:
    writer = ShardWriter(ShardStore(tmp_path), size=2)
    seen = []
    for i in range(5):
        writer.add(record(str(i), i, 1))
        seen.append(len(list(tmp_path.iterdir())))
    assert seen == [0, 1, 1, 2, 2]
    writer.flush()
    assert values(ShardStore(tmp_path)) == {str(i): i for i in range(5)}
    assert len(list(tmp_path.iterdir())) == 3


def test_a_chunk_keeps_its_number_whatever_was_written_before_a_kill(tmp_path: Path) -> None:
    chunks = [["a", "b"], ["c", "d"], ["e"]]
    whole = ShardStore(tmp_path / "whole")
    assert whole.free_numbers(chunks) == [0, 1, 2]
    whole.write([record("c", 1, 1), record("d", 1, 1)], 1)
    assert ShardStore(tmp_path / "whole").free_numbers([chunks[0], chunks[2]]) == [0, 2]
    # What is made anew goes behind the record that it supersedes, so that it counts.
    assert whole.free_numbers([["c", "x"], ["y"], ["d"]]) == [2, 0, 3]
    whole.write([record("c", 2, 1)], 2)
    whole.write([record("y", 3, 1)], 0)
    assert values(ShardStore(tmp_path / "whole")) == {"c": 2, "d": 1, "y": 3}


def test_a_chunk_that_is_there_takes_no_number(tmp_path: Path) -> None:
    store = ShardStore(tmp_path)
    store.write([record("a", 1, 3)])
    assert store.free_numbers([[], ["b"], [], ["c"]]) == [-1, 1, -1, 2]


def test_what_another_process_wrote_is_seen_when_asked_for(tmp_path: Path) -> None:
    store = ShardStore(tmp_path)
    assert store.fingerprints() == {}
    sent = pickle.loads(pickle.dumps(store))
    sent.write([record("a", 1, 1)], 0)
    assert "a" not in store
    store.see(sent.fingerprints())
    assert "a" in store
    with pytest.raises(ArtifactError, match=r"1 of 2 records .* not seen .* all machines share"):
        store.see({**sent.fingerprints(), "b": "x"}, patience_s=0)


def test_equal_records_give_equal_files(tmp_path: Path) -> None:
    paths = [
        ShardStore(tmp_path / name).write([record("a", 1, 3), record("b", 2, 0)])
        for name in ("one", "two")
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_small_jobs_have_small_shards() -> None:
    assert [shard_size(n, 4, 16) for n in (1, 64, 100, 256, 100_000)] == [4, 4, 6, 16, 16]


def test_columns_and_lengths_are_read_shard_by_shard(tmp_path: Path) -> None:
    store = ShardStore(tmp_path)
    assert store.lengths("x") == store.column("flags") == {}
    store.write([record("a", 1, 3), record("b", 2, 0)])
    store.write([record("a", 3, 1)])
    assert store.lengths("x") == {"a": 1, "b": 0}
    np.testing.assert_equal(store.column("flags"), {"a": [3, 3, 3], "b": [2, 2, 2]})
    with pytest.raises(ArtifactError, match="holds nothing for 'c'"):
        store.column("flags", ["c"])


@pytest.mark.parametrize("damage", ["offsets", "beyond", "huge"])
def test_an_edited_shard_is_named_before_it_is_read(tmp_path: Path, damage: str) -> None:
    path = ShardStore(tmp_path).write([record("a", 1, 3), record("b", 2, 2)])
    with h5py.File(path, "r+") as file:
        if damage == "huge":  # claimed, but never written: HDF5 would fill it with zeros
            del file["fields/x"]
            file.create_dataset("fields/x", shape=(10**9, 2), dtype=np.float32, chunks=(1024, 2))
        else:
            file["offsets/x"][1] = 10**9 if damage == "beyond" else -1
    with pytest.raises(ArtifactError, match=r"part-00000\.h5.*delete it and run again"):
        ShardStore(tmp_path).read("a")


@pytest.mark.parametrize("damage", ["claim", "numbers", "group"])
def test_edited_keys_count_as_missing(tmp_path: Path, damage: str) -> None:
    path = ShardStore(tmp_path).write([record("a", 1, 3)])
    with h5py.File(path, "r+") as file:
        del file["keys"]
        if damage == "claim":
            text = h5py.string_dtype("utf-8")
            file.create_dataset("keys", shape=(10**10,), dtype=text, chunks=(1024,))
        elif damage == "numbers":
            file["keys"] = np.zeros(1)
        else:
            file.create_group("keys")
    assert ShardStore(tmp_path).fingerprints() == {}


def test_features_of_another_shape_are_named(tmp_path: Path) -> None:
    fields = {name: np.zeros((4, 3), np.float32) for name in ("keypoints", "descriptors")}
    fields |= {name: np.zeros(4, np.float32) for name in ("scales", "scores")}
    fields["image_size"] = np.array([[640, 480]], np.int32)
    store = FeatureStore(tmp_path)
    store.write([Record("a.jpg", "f", fields)])
    with pytest.raises(ArtifactError, match=r"'a\.jpg' are damaged"):
        store.load("a.jpg")
    with pytest.raises(ArtifactError, match=r"'a\.jpg' are damaged"):
        store.keypoints("a.jpg")
