from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

import reconstruct
from reconstruct.colmap import database_pairs
from reconstruct.datasets.synthetic import SyntheticDataset
from reconstruct.stages import database


def test_a_database_that_sqlite_could_not_finish_is_not_taken(
    chain: Path, square: SyntheticDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = database.colmap.write_database

    def unfinished(path: Path, *arguments: Any) -> None:
        write(path, *arguments)
        path.with_name(path.name + "-wal").write_bytes(b"frames that found no room in the database")

    arguments = (chain, square.images, tmp_path, {"map": None})
    with monkeypatch.context() as patched:
        patched.setattr(database.colmap, "write_database", unfinished)
        with pytest.raises(OSError, match=r"no room to finish the database: .*database\.db"):
            reconstruct.run(*arguments, verbosity=-1)
    assert not list(tmp_path.glob("database.db*"))
    found = reconstruct.run(*arguments, verbosity=-1)
    with sqlite3.connect(found.output / "database.db") as opened:
        assert opened.execute("SELECT count(*) FROM images").fetchone() == (len(square.names),)
    assert database_pairs(found.output / "database.db", [square.names[:2]])
