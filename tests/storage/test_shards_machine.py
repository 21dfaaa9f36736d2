"""A store of shards is a dictionary, whatever was done to it and whoever opens it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import h5py
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from reconstruct.atomic import TEMPORARY
from reconstruct.storage.shard_file import Record
from reconstruct.storage.shard_writer import ShardWriter
from reconstruct.storage.shards import ShardStore

KEYS = st.sampled_from(["a", "b", "c/d", "e f", "ü"])


class Shards(RuleBasedStateMachine):
    """The store beside a dictionary: key -> (fingerprint, value)."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = ShardStore(Path(self.folder.name) / "shards")
        self.expected: dict[str, tuple[str, int]] = {}

    def teardown(self) -> None:
        self.store._close()
        self.folder.cleanup()

    @rule(
        entries=st.lists(st.tuples(KEYS, st.integers(0, 3)), unique_by=lambda entry: entry[0]),
        size=st.integers(1, 3),
    )
    def write(self, entries: list[tuple[str, int]], size: int) -> None:
        writer = ShardWriter(self.store, size)
        for key, value in entries:
            fields = {"x": np.full((value, 2), value), "flag": np.array([value])}
            writer.add(Record(key, f"f{value}", fields))
            self.expected[key] = (f"f{value}", value)
        writer.flush()

    @rule()
    def compact(self) -> None:
        self.store.compact()
        held = [key for path in self.store._shards() for key in keys_of(path)]
        assert len(held) == len(set(held))

    @rule(key=KEYS)
    def discard(self, key: str) -> None:
        self.store.discard(lambda other: other == key)
        self.expected.pop(key, None)

    @rule()
    def kill_while_writing(self) -> None:
        self.store.folder.mkdir(exist_ok=True)
        (self.store.folder / f"part-00099.h5{TEMPORARY}").write_bytes(b"half a shard")

    @rule()
    def open_again(self) -> None:
        self.store._close()
        self.store = ShardStore(self.store.folder)

    @invariant()
    def holds_what_was_written(self) -> None:
        prints = {key: fingerprint for key, (fingerprint, _) in self.expected.items()}
        assert self.store.fingerprints() == prints
        lengths = self.store.lengths("x")
        for key, (_, value) in self.expected.items():
            assert self.store.read(key, "flag")["flag"].tolist() == [value]
            assert lengths[key] == value


def keys_of(path: Path) -> list[str]:
    with h5py.File(path, "r") as file:
        return [str(key) for key in file["keys"].asstr()[:]]


TestShards = Shards.TestCase
TestShards.settings = settings(max_examples=25, stateful_step_count=15)
