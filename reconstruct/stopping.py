"""SIGTERM, as a cluster or `docker stop` sends it: end as with Ctrl-C, but with status 143.

COLMAP's library answers the signal with a C++ stack dump, as if it had crashed; and Python alone
would hear of it only when a long computation in C++ is over.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STATUS = 128 + signal.SIGTERM
GRACE_S = 10.0
"""After so long, the process leaves a computation that cannot be interrupted: what is committed is
complete."""


class Terminated(BaseException):
    """SIGTERM came. Not an Exception, so that nothing takes it for a failure of its own."""


@contextmanager
def stopping_on_sigterm() -> Iterator[None]:
    """Within it, SIGTERM raises `Terminated` in the main thread.

    To be entered after COLMAP's library is loaded, which puts its own handler in place. Does
    nothing in other threads, where Python lets no handler be set.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    before = signal.signal(signal.SIGTERM, _raise)
    wakeup = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(receiver,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
        sender.close()  # ends the thread


def _raise(*_: object) -> None:
    raise Terminated


def _watch(receiver: socket.socket) -> None:
    """Leave the process some time after SIGTERM if the main thread did not."""
    with receiver:
        while received := receiver.recv(1):  # the number of a signal; nothing: the block has ended
            if received[0] == signal.SIGTERM:
                receiver.settimeout(GRACE_S)
                try:
                    while receiver.recv(1):
                        pass
                except TimeoutError:
                    print("terminated; run again to go on", file=sys.stderr, flush=True)
                    os._exit(STATUS)
                return
