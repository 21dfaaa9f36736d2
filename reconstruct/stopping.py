"""Ctrl-C, and SIGTERM as a cluster or `docker stop` sends it: end cleanly, with status 130 or 143.

COLMAP's library answers SIGTERM with a C++ stack dump, as if it had crashed. Python alone would
hear of a signal only when a long computation in C++ is over, and leave threads behind that crash
where a second Ctrl-C cuts its waiting for them short.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STATUS: dict[int, int] = {signal.SIGINT: 128 + signal.SIGINT, signal.SIGTERM: 128 + signal.SIGTERM}
GRACE_S = 10.0
"""So long after SIGTERM, the process leaves a computation that cannot be interrupted: what is
committed is complete."""


class Terminated(BaseException):
    """SIGTERM came. Not an Exception, so that nothing takes it for a failure of its own."""


@contextmanager
def stopping_cleanly() -> Iterator[None]:
    """Within it, SIGTERM raises `Terminated` in the main thread, and Ctrl-C KeyboardInterrupt.

    A second signal ends the process at once, also while it leaves after the first. Does nothing in
    other threads, where Python lets no handler be set, and leaves alone what is ignored.
    """
    if not _handlers_can_be_set():
        yield
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    before = {n: signal.signal(n, _stop) for n in STATUS if signal.getsignal(n) != signal.SIG_IGN}
    wakeup = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(receiver,), daemon=True).start()
    try:
        yield
    finally:
        if all(signal.getsignal(number) is _stop for number in before):
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
            sender.close()  # ends the thread
        else:
            sender.detach()  # the process is ending: a second signal is still heard


@contextmanager
def keeping_sigterm() -> Iterator[None]:
    """SIGTERM does after it what it did before: COLMAP's library, loaded in it, has an own idea.

    A signal that comes meanwhile waits: in the middle of loading, that library's answer may hang.
    Threads that start meanwhile will never hear of it, but one that was there before may, so the
    libraries that start threads are loaded in it too (see `reconstruct.command.arguments.load`).
    """
    before = signal.getsignal(signal.SIGTERM)
    with _not_heard():
        yield
        if before is not None and _handlers_can_be_set():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _not_heard() -> Iterator[None]:
    """Within it, this thread leaves SIGTERM to others, or until later."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _handlers_can_be_set() -> bool:
    return threading.current_thread() is threading.main_thread()


def _stop(number: int, _: FrameType | None) -> None:
    for each in STATUS:
        signal.signal(each, _heard)
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _heard(*_: object) -> None:
    """Do nothing: the thread of `_watch` answers a second signal by leaving the process."""


def _watch(receiver: socket.socket) -> None:
    """Leave the process at a second signal, and some time after SIGTERM."""
    seen = 0
    with receiver, _not_heard():
        try:
            while received := receiver.recv(1):  # number of a signal; nothing: the block has ended
                status = STATUS.get(received[0])
                seen += status is not None
                if status is not None and seen == 2:
                    os._exit(status)
                if received[0] == signal.SIGTERM:
                    receiver.settimeout(GRACE_S)
        except TimeoutError:
            print("terminated; run again to go on", file=sys.stderr, flush=True)
            os._exit(STATUS[signal.SIGTERM])
