"""What the subcommands share: how one is added, paths looked at first, libraries loaded, JSON in
place of tables."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reconstruct.errors import UsageError

Command = Callable[[argparse.Namespace], int]
"""What a subcommand does with its parsed arguments; returns the exit status."""


def add_command(commands: Any, name: str, command: Command, text: str) -> argparse.ArgumentParser:
    """Add a subcommand, and say in ``text`` what it is for.

    Args:
        commands: What `argparse.ArgumentParser.add_subparsers` returned.
        name: The word after ``reconstruct``.
        command: What it does.
        text: Its line of help.
    """
    added: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    added.set_defaults(run=command)
    return added


def load() -> None:
    """Load COLMAP's library, before anything else that starts threads.

    Only then does SIGTERM end the program cleanly while it loads: see `keeping_sigterm`.
    """
    import reconstruct.colmap  # noqa: F401


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")


def print_json(value: Any) -> None:
    """Print a result for other programs."""
    print(json.dumps(value, indent=1, default=str))


def check_folder(path: Path, advice: str = "") -> None:
    """Raise UsageError if there is no such folder; ``advice`` ends its message."""
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder{advice}")


def check_exists(path: Path) -> None:
    """Raise UsageError if there is neither such a file nor such a folder."""
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
