"""Progress of a run: a bar on a terminal, plain lines elsewhere, and log.txt."""

from __future__ import annotations

import contextlib
import errno
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

logger = logging.getLogger("reconstruct")
Advance = Callable[[], None]

PLAIN_SECONDS = 10.0
"""Least time between two progress lines where there is no terminal."""


class Reporter:
    """Progress and messages of one run. verbosity: -1 quiet, 0 normal, 1 verbose."""

    def __init__(self, verbosity: int = 0) -> None:
        self.console = Console(stderr=True, quiet=verbosity < 0)
        self.verbosity = verbosity

    @contextlib.contextmanager
    def task(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        """Show the progress of ``total`` units; call the yielded function after each of them."""
        started = time.monotonic()
        if self.verbosity < 0 or total == 0:
            yield lambda: None
        elif self.console.is_terminal:
            with self._bar(name, total, unit) as advance:
                yield advance
        else:
            yield _lines(name, total, unit)
        seconds = time.monotonic() - started
        logger.debug("%s: %d %s in %.1f s", name, total, unit, seconds)

    @contextlib.contextmanager
    def _bar(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        columns = (
            TextColumn("{task.description:<8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(name, total=total)
            yield lambda: progress.advance(task)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


def _lines(name: str, total: int, unit: str) -> Advance:
    started = last = time.monotonic()
    done = 0

    def advance() -> None:
        """Count one more; a line at the end, and every `PLAIN_SECONDS` before."""
        nonlocal done, last
        done += 1
        now = time.monotonic()
        if now - last < PLAIN_SECONDS and done < total:
            return
        last = now
        rate = done / max(now - started, 1e-9)
        left = (total - done) / rate
        logger.info("%s: %d/%d %s, %.2f/s, %.0f s left", name, done, total, unit, rate, left)

    return advance


class _LogFile(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        self._say_where(sys.exc_info()[1])
        raise  # so that a full disk ends the run with one line, not with a traceback for each

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:  # of what could not be written before either
            self._say_where(error)
            raise

    def _say_where(self, error: BaseException | None) -> None:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = self.baseFilename


@contextlib.contextmanager
def logging_to(reporter: Reporter, file: Path | None) -> Iterator[None]:
    """While active, send the package's log to the console, and all of it to ``file``."""
    if reporter.console.is_terminal:
        console: logging.Handler = RichHandler(
            console=reporter.console, show_time=False, show_path=False, show_level=False
        )
    else:
        console = logging.StreamHandler()
        console.setFormatter(logging.Formatter("%(message)s"))
    levels = {-1: logging.ERROR, 0: logging.INFO, 1: logging.DEBUG}
    console.setLevel(levels[reporter.verbosity])
    handlers = [console]
    if file is not None:
        if file.is_fifo():  # would wait for a reader
            raise OSError(errno.EINVAL, "not a regular file", str(file))
        handlers.append(_LogFile(file, encoding="utf-8"))
        handlers[-1].setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    previous = logger.level
    logger.setLevel(logging.DEBUG)
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.setLevel(previous)
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
