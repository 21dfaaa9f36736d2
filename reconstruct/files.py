"""Reading files that someone else wrote: only regular ones, and never more than a limit.

A folder of photos may hold a pipe or a device whose name ends in .jpg: reading it could hang, or go
on forever.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

TEXT_LIMIT_BYTES = 1 << 30
"""Of a text file that is read at once."""


def open_regular(path: Path | str) -> BufferedReader:
    """Open a regular file (or a link to one) for reading.

    Raises OSError if it is absent, or if it is a folder, a pipe, a socket or a device.
    """
    # Without O_NONBLOCK, opening a pipe waits until another program writes to it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: Path | str, limit: int) -> bytes:
    """The content of a regular file. Raises OSError, as for one of more than ``limit`` bytes."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", str(path))
        return file.read(size)


def read_text(path: Path | str, limit: int = TEXT_LIMIT_BYTES) -> str:
    """The UTF-8 text of a regular file, line ends as ``\\n``.

    Raises OSError as `read_bytes` does, UnicodeDecodeError if it is not UTF-8.
    """
    text = read_bytes(path, limit).decode("utf-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError if it is none, or nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json(path: Path | str) -> Any:
    """The value in a JSON file. Raises OSError as `read_bytes` does, ValueError as `parse_json`."""
    return parse_json(read_text(path))
