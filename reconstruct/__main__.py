"""Command line: ``reconstruct COMMAND`` or ``python -m reconstruct COMMAND``.

The subcommands are in `reconstruct.command`; parsed arguments end there. What is heavy is imported
by the subcommand that needs it, after the paths that it was given have been looked at.

Exit status: 0 done; 1 the data did not allow it; 2 wrong use; 3 done, but some photos were skipped;
130 and 143 interrupted by Ctrl-C and by SIGTERM.
"""

from __future__ import annotations

import argparse
import errno
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from reconstruct.command import explaining, results, running, training
from reconstruct.command.arguments import add_command
from reconstruct.errors import ReconstructError, UsageError
from reconstruct.stopping import STATUS, Terminated, stopping_cleanly

_WRONG_PATH = {
    *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EACCES, errno.EPERM),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENXIO),
}
"""Error numbers that mean that the given path is at fault, not the disk."""


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    main = argparse.ArgumentParser(
        prog="reconstruct",
        description="From photos to COLMAP models and camera poses, around D2-Net.",
    )
    main.add_argument("--version", action=_Version, help="print the version and leave")
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for group in (running, results, explaining, training):
        group.add_to(commands)
    completion = add_command(
        commands, "completion", _completion, "print a script for TAB in a shell"
    )
    completion.add_argument("shell", choices=["bash", "zsh", "tcsh"])
    return main


def _completion(args: argparse.Namespace) -> int:
    import shtab

    print(shtab.complete(parser(), args.shell))
    return 0


class _Version(argparse.Action):
    """Looks the version up only when asked for it."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"{parser.prog} {version('reconstruct')}")
        parser.exit()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a photo's name may not fit its encoding
    args = parser().parse_args(arguments)
    try:
        with stopping_cleanly():
            status: int = args.run(args)
        if sys.stdout is not None:  # closed, as by `>&-`
            sys.stdout.flush()
        return status
    except ReconstructError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except BrokenPipeError:  # what reads our output has left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno in _WRONG_PATH:
            print(f"error: {error}; give another path, or mend this one", file=sys.stderr)
            return UsageError.exit_status
        # Nothing half-written counts as done (see atomic.py), so running again goes on.
        print(f"error: {error}; free or repair the disk, then run again to go on", file=sys.stderr)
        return 1
    except MemoryError:
        print(
            "error: out of memory; give the program more, or smaller photos "
            "(extract.local.max_edge), then run again to go on",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("interrupted; run again to go on", file=sys.stderr)
        return STATUS[signal.SIGINT]
    except Terminated:
        print("terminated; run again to go on", file=sys.stderr)
        return STATUS[signal.SIGTERM]


if __name__ == "__main__":
    sys.exit(main())
