"""Commands of the program, each tried in a process of its own: killed, or on a full disk.

    python attempts.py stops SPEC.json      killed at its N-th change of a folder, and run again
    python attempts.py growing SPEC.json    killed at its 1st change, run on, killed at its 2nd ...
                                            until one ends by itself
    python attempts.py disk SPEC.json       on a disk of N bytes, and again on a large one
    python attempts.py tampering SPEC.json  on a folder of which a file was edited

The libraries are loaded once, and each attempt is a fork of this process. One line of JSON is
printed a case.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import mmap
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import scipy.io  # noqa: F401 - loaded once, before the forks
import torch  # noqa: F401

sys.path.insert(0, str(Path(__file__).parents[1]))
from faults.tampering import tamper

from reconstruct.__main__ import main
from reconstruct.atomic import TEMPORARY, is_temporary
from reconstruct.comparison import compare  # noqa: F401
from reconstruct.errors import ArtifactError
from reconstruct.fingerprints import database_hash, file_hash
from reconstruct.pipeline.config import load_config  # noqa: F401
from reconstruct.stages.keyed import KeyedStage
from reconstruct.training import train

PATIENCE_S = 120
KILLED_EACH = 20
MEMORY = 3 << 30
LARGE_BYTES = 1 << 28
PAGE_BYTES = 4096
FEWEST_SIZES = 64
"""Of disks, where a run writes so many pages."""
CHANGES = ("replace", "rename", "unlink", "remove", "rmdir")
TOLD = ("log.txt", "summary.json", "report.html", "run.yaml", "compare.html")
"""What tells of the runs, and so differs between one run and many."""


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What to try.

    Attributes:
        arguments: Of the command line.
        output: The folder that it changes.
        template: What the folder holds before; None: there is no such folder.
        first: The first case.
        step: From there each so many-th.
        last: Of ``tampering``, the last case.
        stride: Of ``disk``, the most bytes between the sizes of two cases.
        untold: Names of files that hold times, and are not compared.
    """

    arguments: list[str]
    output: str
    template: str | None = None
    first: int = 1
    step: int = 1
    last: int = 0
    stride: int = 1 << 14
    untold: list[str] = dataclasses.field(default_factory=list)

    @property
    def folder(self) -> Path:
        """The folder."""
        return Path(self.output)

    def reset(self) -> None:
        """Make the folder as it is before."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.template is not None:
            shutil.copytree(self.template, self.folder)

    def contents(self) -> dict[str, str]:
        """Name of every file -> SHA-256, but for locks and stamps, which hold times.

        Of a database, over its rows: its file counts how often it was opened.
        """
        return {
            path.relative_to(self.folder).as_posix(): _hash(path)
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
            and not path.name.startswith(".")
            and path.name not in (*TOLD, *self.untold)
        }


def _hash(path: Path) -> str:
    try:
        return database_hash(path) if path.suffix == ".db" else file_hash(path)
    except ArtifactError:  # a database that was edited
        return file_hash(path)


@dataclass(frozen=True)
class Attempt:
    """How a command ended: its exit status (of a signal: negative), what it said, how often it
    changed a folder."""

    status: int
    told: str
    changes: int


def attempt(
    arguments: list[str],
    killed_at: int = 0,
    memory: int = 0,
    looked_at: Callable[[int], None] | None = None,
) -> Attempt:
    """Run a command in a fork; it dies just before its change number ``killed_at``, if it has.

    memory: limit on its address space, beyond that of this process; 0: none. looked_at: called
    with the number of each change just before it, while the process stands still.
    """
    counter = mmap.mmap(-1, 8)
    with tempfile.TemporaryFile() as output:
        child = os.fork()
        if child == 0:
            _run(arguments, output.fileno(), counter, killed_at, memory, looked_at is not None)
        status = os.waitpid(child, os.WUNTRACED)[1]
        while os.WIFSTOPPED(status):
            assert looked_at is not None
            looked_at(_number(counter))
            os.kill(child, signal.SIGCONT)
            status = os.waitpid(child, os.WUNTRACED)[1]
        output.seek(0)
        told = output.read().decode(errors="replace")
    return Attempt(os.waitstatus_to_exitcode(status), told, _number(counter))


def _run(
    arguments: list[str],
    output: int,
    counter: mmap.mmap,
    killed_at: int,
    memory: int,
    standing: bool,
) -> NoReturn:
    """The command, in this process; see `attempt`. standing: stop before each change."""
    for standard in (1, 2):
        os.dup2(output, standard)
    sys.stdout, sys.stderr = (
        open(fd, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - until the process ends
        for fd in (1, 2)
    )
    signal.alarm(0 if standing else PATIENCE_S)
    if memory:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    _count_changes(counter, killed_at, standing)
    try:
        status = main(arguments)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _number(counter: mmap.mmap) -> int:
    number: int = struct.unpack("q", counter[:8])[0]
    return number


def _count_changes(counter: mmap.mmap, killed_at: int, standing: bool) -> None:
    one_at_a_time = threading.Lock()  # photos are converted side by side

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with one_at_a_time:
                number = _number(counter) + 1
                counter[:8] = struct.pack("q", number)
                if standing:
                    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
                if number == killed_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return change(*args, **kwargs)

        return call

    for name in CHANGES:
        setattr(os, name, counted(getattr(os, name)))


def stops(spec: Spec, whole: Attempt, wanted: dict[str, str]) -> Iterator[dict[str, Any]]:
    """What a kill at the N-th change leaves, and a run from there to the end; for every N.

    One run stands still before each of its changes, as a killed one would for ever, and the folder
    is copied. Where nothing in the folder differs from the stop before (the change was made
    elsewhere, or came to nothing), one run answers for both. Each `KILLED_EACH`-th time a run is
    killed indeed, and must leave the same.
    """
    copies = spec.folder.with_name("stops")
    copies.mkdir()
    seen: dict[int, list[int]] = {}  # stop at which it was copied -> those that it answers for
    last: list[tuple[Any, ...]] = []

    def look(number: int) -> None:
        nonlocal last
        found = _listed(spec.folder)
        if not seen or found != last:
            last, seen[number] = found, []
            if spec.folder.exists():
                shutil.copytree(spec.folder, copies / str(number), symlinks=True)
        if number >= spec.first and (number - spec.first) % spec.step == 0:
            seen[max(seen)].append(number)

    spec.reset()
    stood = attempt(spec.arguments, looked_at=look)
    assert (stood.status, spec.contents()) == (whole.status, wanted), stood.told
    cases = [number for number in seen if seen[number]]
    for index, number in enumerate(cases):
        copy = copies / str(number)
        truth = _as_killed(spec, number, copy) if index % KILLED_EACH == KILLED_EACH // 2 else {}
        shutil.rmtree(spec.folder, ignore_errors=True)
        if copy.exists():
            copy.rename(spec.folder)
        again = attempt(spec.arguments)
        more = {"stops": len(seen[number]), **truth}
        yield _found(spec, number, again, again, wanted) | more


def _as_killed(spec: Spec, number: int, copy: Path) -> dict[str, Any]:
    """How a run ends that is killed at a change, and what it leaves that a copy has not."""
    spec.reset()
    status = attempt(spec.arguments, killed_at=number).status
    left, copied = (_sizes(folder, (*TOLD, *spec.untold)) for folder in (spec.folder, copy))
    return {"killed": status, "left": sorted(left ^ copied)}


def _sizes(folder: Path, untold: tuple[str, ...]) -> set[tuple[str, int]]:
    """Names and sizes of the files in a folder, but for what differs from run to run: numbers of
    processes, in the names of shards that are not committed yet and in the lock, and times."""
    sizes = set()
    for path in folder.rglob("*"):
        name = re.sub(rf"(\.h5)\.[^.]+-\d+{TEMPORARY}$", rf"\1{TEMPORARY}", path.name)
        told = name.startswith(".") or name.removesuffix(TEMPORARY) in untold
        if not told and not path.is_dir():
            place = path.parent.relative_to(folder).as_posix()
            sizes.add((f"{place}/{name}", path.lstat().st_size))
    return sizes


def _listed(folder: Path) -> list[tuple[Any, ...]]:
    """Every path below a folder, with what tells that it was touched."""
    if not folder.exists():
        return []
    listed = []
    for path in [folder, *sorted(folder.rglob("*"))]:
        found = path.lstat()
        times = (found.st_mtime_ns, found.st_ctime_ns)
        listed.append((str(path), found.st_mode, found.st_ino, found.st_size, *times))
    return listed


def growing(spec: Spec, whole: Attempt, wanted: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Kill a run at its 1st change, run on, kill that at its 2nd ... until one ends."""
    spec.reset()
    for number in range(1, whole.changes + 2):
        last = attempt(spec.arguments, killed_at=number)
        if last.status != -signal.SIGKILL:
            yield _found(spec, number, last, last, wanted)
            return


def disk(spec: Spec, whole: Attempt, wanted: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Run on a disk of N bytes and again on a large one; for every N until one is enough."""
    _resize(spec.folder.parent, LARGE_BYTES)
    after = _held(spec.folder.parent)
    spec.reset()
    held = _held(spec.folder.parent)
    fine = (after - held) // FEWEST_SIZES // PAGE_BYTES * PAGE_BYTES
    stride = min(spec.stride, max(fine, PAGE_BYTES))
    for size in range(held + spec.first * stride, LARGE_BYTES, spec.step * stride):
        spec.reset()
        _resize(spec.folder.parent, size)
        full = attempt(spec.arguments)
        _resize(spec.folder.parent, LARGE_BYTES)
        temporaries = [p.name for p in spec.folder.rglob("*") if is_temporary(p.name)]
        lost = _differing(spec, wanted) if full.status == whole.status else []
        again = attempt(spec.arguments)
        more = {"temporaries": temporaries, "lost without a word": lost}
        yield _found(spec, size, full, again, wanted) | more
        if full.status == whole.status:
            return


def tampering(spec: Spec, whole: Attempt, wanted: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Edit one file of a finished folder, and run what reads it; N seeds what is done."""
    del whole
    for number in range(spec.first, spec.last + 1, spec.step):
        spec.reset()
        done, stage = tamper(spec.folder, np.random.default_rng(number))
        force = ["--force", stage] if stage and spec.arguments[0] == "run" else []
        found = attempt([*spec.arguments, *force], memory=MEMORY)
        yield _found(spec, number, found, found, wanted) | {"done": done}


def _held(mount: Path) -> int:
    """Bytes in use on a disk."""
    found = os.statvfs(mount)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def _resize(folder: Path, size: int) -> None:
    options = ("-o", f"remount,size={size}", str(folder))
    subprocess.run(["mount", *options], check=True)


def _found(
    spec: Spec, case: int, first: Attempt, again: Attempt, wanted: dict[str, str]
) -> dict[str, Any]:
    return {
        "case": case,
        "status": first.status,
        "told": first.told[-2000:],
        "again": again.status,
        "told again": again.told[-2000:],
        "differing": _differing(spec, wanted),
    }


def _differing(spec: Spec, wanted: dict[str, str]) -> list[str]:
    found = spec.contents()
    return sorted(n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n))


class _Frozen(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> _Frozen:
        return cls(2020, 1, 1, tzinfo=tz)


def _small_shards(stage: type[KeyedStage] = KeyedStage) -> None:
    """Two records a shard, so that a small run has many commits."""
    stage.shard = (2, 2)
    for further in stage.__subclasses__():
        _small_shards(further)


def steady() -> None:
    """Let equal runs leave equal bytes: no times in them, and many commits in a small run."""
    train.datetime = _Frozen  # type: ignore[attr-defined]
    time.perf_counter = float
    _small_shards()


def try_all(kind: str, spec: Spec) -> Iterator[dict[str, Any]]:
    """How an undisturbed run ended, and then what became of each case."""
    if kind == "disk":
        spec.folder.parent.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(spec.folder.parent)], check=True)
    spec.reset()
    whole = attempt(spec.arguments)
    wanted = spec.contents()
    if kind == "tampering":
        done = spec.folder.rename(spec.folder.with_name("done"))
        spec = dataclasses.replace(spec, template=str(done))
    yield {"changes": whole.changes, "status": whole.status, "told": whole.told}
    kinds = {"stops": stops, "growing": growing, "disk": disk, "tampering": tampering}
    yield from kinds[kind](spec, whole, wanted)


if __name__ == "__main__":
    steady()
    settings = json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    for found in try_all(sys.argv[1], Spec(**settings)):
        print(json.dumps(found), flush=True)
