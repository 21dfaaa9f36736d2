"""``reconstruct prepare``: training data of a public data set."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from reconstruct.command.arguments import add_command, check_folder, load


def add_to(commands: Any) -> None:
    """Add this subcommand to the command line."""
    prepare = add_command(commands, "prepare", _prepare, "make training data of a public data set")
    prepare.add_argument("dataset", choices=["megadepth"])
    prepare.add_argument("base", metavar="DIR", type=Path, help="holds Undistorted_SfM and depth")
    prepare.add_argument("--output", required=True, metavar="DIR", type=Path, help="scene files")


def _prepare(args: argparse.Namespace) -> int:
    check_folder(args.base)
    load()
    from reconstruct.training.data.prepare import prepare_megadepth

    names = prepare_megadepth(args.base, args.output)
    print(f"{args.output}: {len(names)} new scene file(s){': ' if names else ''}{', '.join(names)}")
    return 0
