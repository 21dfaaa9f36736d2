from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reconstruct.atomic import TEMPORARY, aside_of, atomic_path, reserve
from reconstruct.errors import UsageError, WorkspaceBusyError
from reconstruct.fingerprints import (
    database_hash,
    fingerprint,
    fingerprinter,
    json_text,
    tree_hash,
)
from reconstruct.workspace import Workspace

HOLD = """
import sys, time
from reconstruct.workspace import Workspace
with Workspace(sys.argv[1]).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def interrupted_write(path: Path, error: BaseException) -> None:
    with atomic_path(path) as temporary:
        if path.is_dir():
            temporary.mkdir()
            (temporary / "half").write_text("x")
        else:
            temporary.write_text("half")
        raise error


def test_a_file_stands_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()
    with pytest.raises(RuntimeError, match="half-way"):
        interrupted_write(path, RuntimeError("half-way"))
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


def test_what_the_system_says_of_a_write_names_the_file(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")  # as a write raises it
    own = OSError("encoder error -2")  # as Pillow raises it
    other = FileNotFoundError(errno.ENOENT, "No such file", "elsewhere")
    for error, named in ((full, "file.txt"), (own, "file.txt"), (other, "elsewhere")):
        with pytest.raises(OSError, match=re.escape(str(error.strerror or error))) as caught:
            interrupted_write(tmp_path / "file.txt", error)
        assert Path(caught.value.filename).name == named
        assert str(caught.value.filename) in str(caught.value)


def test_a_folder_stands_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for content in ("first", "second"):
        with atomic_path(path) as temporary:
            (temporary / "sub").mkdir(parents=True)
            (temporary / "sub" / content).write_text(content)
    with pytest.raises(KeyboardInterrupt):
        interrupted_write(path, KeyboardInterrupt())
    assert [file.name for file in path.rglob("*")] == ["sub", "second"]
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_run_left_is_overwritten(tmp_path: Path) -> None:
    left = tmp_path / f"a{TEMPORARY}"
    left.mkdir()
    (left / "half").write_text("x")
    with atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("whole")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_what_sqlite_kept_beside_a_temporary_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    stale = tmp_path / f"database.db{TEMPORARY}-wal"
    stale.write_bytes(b"of a run that was killed")
    with pytest.raises(OSError, match="full"), atomic_path(path) as temporary:  # noqa: PT012
        assert not stale.exists(), "or it would be read as a part of the next database"
        for suffix in ("", "-wal", "-shm"):
            temporary.with_name(temporary.name + suffix).touch()
        raise OSError(errno.ENOSPC, "full")
    assert list(tmp_path.iterdir()) == []


def test_what_sqlite_logged_of_a_database_does_not_spoil_the_next(tmp_path: Path) -> None:
    path = tmp_path / "database.db"

    def write(path: Path, rows: int) -> None:
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE t (x)")
            database.executemany("INSERT INTO t VALUES (?)", [("x" * 100,)] * rows)
            database.commit()

    write(path, 100)
    opened = sqlite3.connect(path)
    opened.execute("PRAGMA journal_mode=WAL")
    opened.execute("DELETE FROM t WHERE rowid > 50")
    opened.commit()
    log = path.with_name("database.db-wal")
    logged = log.read_bytes()
    opened.close()
    log.write_bytes(logged)  # as a program leaves it that is killed with the database open
    with atomic_path(path) as temporary:
        write(temporary, 7)
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM t").fetchone() == (7,)


def test_reading_a_database_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL")  # as COLMAP's are
        database.execute("CREATE TABLE t (x)")
    before = database_hash(path)
    assert [file.name for file in tmp_path.iterdir()] == ["database.db"]
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("INSERT INTO t VALUES (1)")
        database.commit()
        assert database_hash(path) != before, "rows that are only logged count"


def test_what_killed_runs_left_goes_when_the_folder_is_opened(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with workspace.lock():
        pass
    half = [
        tmp_path / f"summary.json{TEMPORARY}",
        tmp_path / "features" / f"part-00001.h5.node-17{TEMPORARY}",
        tmp_path / "rows" / "a" / f"database.db{TEMPORARY}-wal",
        tmp_path / f"sparse{TEMPORARY}" / "images.bin",
    ]
    others = [
        tmp_path / "notes.tmp",
        tmp_path / "features" / "part-00000.h5",
        tmp_path / "export" / f"colmap{TEMPORARY}" / "images.bin",  # exported at this moment
    ]
    for path in [*half, *others]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    with workspace.lock():
        assert [path.exists() for path in half] == [False] * len(half)
        half[1].write_text("x")  # of a worker that is killed
    left = {path for path in tmp_path.rglob("*") if path.is_file() and path.name[0] != "."}
    assert left == set(others)


def test_bytes_changed_at_equal_size_and_time_are_noticed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    workspace.sparse.mkdir()
    model = workspace.sparse / "points3D.bin"
    model.write_bytes(b"points")
    workspace.set_stamp(workspace.sparse, "f")
    before = model.stat()
    time.sleep(0.02)  # the system's clock for files is that coarse
    model.write_bytes(b"p0ints")
    os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert workspace.stamp(workspace.sparse) is None


@pytest.mark.parametrize("older", [False, True])
def test_a_copied_folder_counts_and_is_read_whole_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, older: bool
) -> None:
    """So does one of an older version, whose stamps hold the time that a program can set."""
    made, copy = Workspace(tmp_path / "made"), Workspace(tmp_path / "copy")
    made.root.mkdir()
    made.pairs.write_text("a b\n")
    made.set_stamp(made.pairs, "f")
    if older:
        stamps = made.root / ".fingerprints.json"
        fingerprint, size, _, content = json.loads(stamps.read_text())["pairs.txt"]
        known = [fingerprint, size, made.pairs.stat().st_mtime_ns, content]
        stamps.write_text(json.dumps({"pairs.txt": known}))
    time.sleep(0.02)
    shutil.copytree(made.root, copy.root)
    assert copy.stamp(copy.pairs) == "f"
    copy.renew_stamp(copy.pairs)
    monkeypatch.setattr("reconstruct.stamps.content", lambda path: pytest.fail("read again"))
    assert copy.stamp(copy.pairs) == "f"


def test_a_stamp_holds_for_the_artifact_that_was_committed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    assert workspace.stamp(workspace.pairs) is None
    workspace.pairs.write_text("a b\n")
    workspace.set_stamp(workspace.pairs, "f1")
    workspace.sparse.mkdir()
    workspace.set_stamp(workspace.sparse, "f2")
    assert Workspace(tmp_path).stamp(workspace.pairs) == "f1"
    assert workspace.stamp(workspace.sparse) == "f2"
    (workspace.sparse / "images.bin").write_text("more")
    assert workspace.stamp(workspace.sparse) is None, "edited: no longer what was committed"
    workspace.pairs.write_text("a")
    assert workspace.stamp(workspace.pairs) is None, "cut off: counts as missing"
    workspace.set_stamp(workspace.pairs, None)
    workspace.pairs.write_text("a b\n")
    assert workspace.stamp(workspace.pairs) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pairs.txt": "old form"}', '{"a": [1]}'])
def test_unreadable_stamps_count_as_missing(tmp_path: Path, text: str) -> None:
    (tmp_path / ".fingerprints.json").write_text(text)
    (tmp_path / "pairs.txt").write_text("")
    workspace = Workspace(tmp_path)
    assert workspace.stamp(workspace.pairs) is None
    workspace.set_stamp(workspace.pairs, "f")
    assert workspace.stamp(workspace.pairs) == "f"


def test_fingerprints_tell_kinds_parts_and_order_apart() -> None:
    parts = [("a", {"x": 1, "y": 2}), ("b", {"x": 1, "y": 2}), ("a", {"x": 1}), ("a", [1, 2])]
    prints = [fingerprint(*part) for part in parts] + [fingerprint("a", [2, 1])]
    assert len(set(prints)) == 5
    assert fingerprint("a", {"y": 2, "x": 1}) == prints[0]
    assert fingerprint("a", "\udcff") != fingerprint("a", "?"), "names that are not UTF-8"


def test_a_tree_counts_by_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a").write_text("x")
    before = tree_hash(tmp_path)
    (tmp_path / "one").rename(tmp_path / "two")
    renamed = tree_hash(tmp_path)
    (tmp_path / "two" / "a").write_text("y")
    assert len({before, renamed, tree_hash(tmp_path)}) == 3


def test_models_are_listed_by_number_and_only_own_ones_removed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    for name in ("sparse", "sparse_10", "sparse_2"):
        workspace.set_stamp(tmp_path / name, None)
    for name in ("sparse", "sparse_10", "sparse_2", "sparse_x", "sparse_7", "sparse_3.tmp"):
        (tmp_path / name).mkdir()
    assert [path.name for path in workspace.models()] == ["sparse", "sparse_2", "sparse_10"]
    workspace.forget_models(1)
    left = sorted(path.name for path in tmp_path.glob("sparse*"))
    assert left == ["sparse", "sparse_3.tmp", "sparse_7", "sparse_x"], "somebody's models stay"


@pytest.mark.parametrize(
    "name", ["database.db", "sparse/0/", "sparse_7/", "pairs.txt", "features/"]
)
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("/"):
        path.mkdir(parents=True)
    else:
        path.write_text("theirs")
    with pytest.raises(UsageError, match="did not write"):
        Workspace(tmp_path).lock().__enter__()
    assert [p.name for p in tmp_path.iterdir()] == [name.split("/")[0]], "nothing was added"


def test_what_another_program_put_into_an_own_folder_is_not_replaced(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with workspace.lock():
        workspace.database.write_text("theirs")
        with pytest.raises(UsageError, match="not of this program's making"):
            workspace.set_stamp(workspace.database, None)
        (tmp_path / "elsewhere").mkdir()
        workspace.sparse.symlink_to(tmp_path / "elsewhere")
        with (
            pytest.raises(UsageError, match="symbolic link"),
            atomic_path(workspace.sparse) as temporary,
        ):
            temporary.mkdir()
    assert workspace.sparse.is_symlink()
    assert workspace.database.read_text() == "theirs"


def test_a_folder_that_was_being_replaced_is_put_back(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "out")
    with workspace.lock():
        workspace.sparse.mkdir()
        (workspace.sparse / "images.bin").write_bytes(b"model")
        workspace.set_stamp(workspace.sparse, "f")
    old = aside_of(workspace.sparse)
    workspace.sparse.rename(old)  # and then it was killed
    with workspace.lock():
        assert workspace.stamp(workspace.sparse) == "f"
        assert workspace.models() == [workspace.sparse]
        workspace.set_stamp(workspace.sparse, None)
        with atomic_path(workspace.sparse, keep_old=True) as temporary:
            temporary.mkdir()
    assert old.is_dir()  # and then it was killed
    with workspace.lock():
        assert [path.name for path in workspace.sparse.iterdir()] == ["images.bin"]
        with atomic_path(workspace.sparse, keep_old=True) as temporary:
            temporary.mkdir()
        workspace.set_stamp(workspace.sparse, "g")
    assert not old.exists()


def test_junk_of_equal_size_is_not_what_was_committed(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with contextlib.closing(sqlite3.connect(workspace.database)) as database:
        database.execute("CREATE TABLE images (name TEXT)")
        database.execute("INSERT INTO images VALUES ('a.jpg')")
        database.commit()
    workspace.set_stamp(workspace.database, "f")
    with contextlib.closing(sqlite3.connect(workspace.database)) as database:
        database.execute("PRAGMA user_version = 7")
    assert workspace.stamp(workspace.database) == "f", "opened by another program: the same rows"
    workspace.database.write_bytes(b"\0" * workspace.database.stat().st_size)
    assert workspace.stamp(workspace.database) is None


def test_the_lock_names_its_holder_and_dies_with_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(WorkspaceBusyError, match=f"process {holder.pid}"):
            Workspace(tmp_path).lock().__enter__()
        os.kill(holder.pid, signal.SIGKILL)
    with Workspace(tmp_path).lock():
        pass
    with Workspace(tmp_path).lock():
        pass


def test_an_output_that_is_a_file_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match=r"cannot be \(part of\) an output folder"):
            Workspace(root).lock().__enter__()


def test_reserve_takes_what_there_is_and_leaves_nothing(tmp_path: Path) -> None:
    reserve(tmp_path, 1000)
    with pytest.raises(OSError):  # noqa: PT011 - which one depends on the file system
        reserve(tmp_path, 1 << 60)
    assert not list(tmp_path.iterdir())


def test_fingerprints_that_begin_alike() -> None:
    parts = [{"b": 1, "a": [None, 0.5]}, "ü\ud800", None, ["x.jpg", "7"]]
    for shared in range(len(parts) + 1):
        of = fingerprinter("kind", *parts[:shared])
        assert of(*map(json_text, parts[shared:])) == fingerprint("kind", *parts)


def test_what_another_program_made_of_an_artifact_is_kept(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    with workspace.lock():
        workspace.sparse.mkdir()
        (workspace.sparse / "images.bin").write_bytes(b"model")
        workspace.set_stamp(workspace.sparse, "f")
        workspace.set_stamp(workspace.sparse, None)
        assert not list(tmp_path.glob("*.changed*")), "as it was left"
        (workspace.sparse / "images.bin").write_bytes(b"half made")
        workspace.set_stamp(workspace.sparse, None)
        assert not list(tmp_path.glob("*.changed*")), "of a run that was killed"
        for _ in range(2):
            workspace.set_stamp(workspace.sparse, "f")
            (workspace.sparse / "0").mkdir(exist_ok=True)
            (workspace.sparse / "0" / "images.bin").write_bytes(os.urandom(9))  # COLMAP's mapper
            workspace.set_stamp(workspace.sparse, None)
    kept = [tmp_path / name / "0" / "images.bin" for name in ("sparse.changed", "sparse.changed-2")]
    assert kept[0].read_bytes() != kept[1].read_bytes()
    assert workspace.models() == [workspace.sparse]
