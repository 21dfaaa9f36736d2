"""``reconstruct run``, ``plan`` and ``compare``: what is done with a pipeline file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reconstruct.command.arguments import (
    Command,
    add_command,
    add_json,
    check_exists,
    check_folder,
    load,
    print_json,
)
from reconstruct.shipped import find_pipeline, pipeline_names

PARTIAL = 3
"""Exit status of a run that is done, but left some inputs out."""


def add_to(commands: Any) -> None:
    """Add these subcommands to the command line."""
    _add_run(commands, "run", _run, "run a pipeline")
    _add_run(commands, "plan", _plan, "what would run, and why")
    _add_compare(commands)


def _add_run(commands: Any, name: str, command: Command, text: str) -> argparse.ArgumentParser:
    parser = add_command(commands, name, command, text)
    parser.add_argument(
        "pipeline",
        metavar="PIPELINE",
        help=f"a YAML file, or one of the package: {', '.join(pipeline_names())}",
    )
    parser.add_argument("--images", metavar="DIR", help="folder of photos; video: the clip")
    parser.add_argument("--output", metavar="DIR", help="output folder")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="replace a setting, e.g. extract.local.multiscale=true (may be repeated)",
    )
    add_json(parser)
    if name == "run":
        parser.add_argument(
            "--cluster",
            metavar="WHERE",
            help="local:4 for worker processes, or the address of a Dask scheduler",
        )
        parser.add_argument("--only", default="", help="run just these stages (a,b)")
        parser.add_argument("--force", default="", help="run these even if up to date (a,b)")
    if name != "plan":
        parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
        volume = parser.add_mutually_exclusive_group()
        volume.add_argument("-v", "--verbose", action="store_true", help="COLMAP's log too")
        volume.add_argument("-q", "--quiet", action="store_true", help="errors only")
    return parser


def _add_compare(commands: Any) -> None:
    compare = _add_run(commands, "compare", _compare, "several methods over the same photos")
    compare.add_argument(
        "--methods",
        metavar="METHOD",
        nargs="+",
        action="extend",
        required=True,
        help="NAME,NAME+MATCHER,... (extractors) or LABEL=KEY=VALUE,... (settings), "
        "e.g. sift,d2net upright=name=sift,upright=true",
    )
    compare.add_argument(
        "--reference", metavar="MODEL", type=Path, help="COLMAP model with true poses"
    )


def _run(args: argparse.Namespace) -> int:
    pipeline = _check_paths(args)
    load()
    from reconstruct.pipeline.run import run
    from reconstruct.report.terminal import print_summary
    from reconstruct.storage.summary import read_summary
    from reconstruct.workspace import Workspace

    finished = run(
        pipeline,
        images=args.images,
        output=args.output,
        overrides=_overrides(args.set),
        device=args.device,
        only=_names(args.only),
        force=_names(args.force),
        verbosity=int(args.verbose) - int(args.quiet),
        cluster=args.cluster,
    )
    summary = finished.summary
    skipped = len(summary.skipped)
    if skipped:
        print(f"{skipped} input(s) skipped, see the summary: exit status 3", file=sys.stderr)
    if args.json:
        print_json(
            {
                "output": str(finished.output),
                "skipped": summary.skipped,
                "stages": read_summary(Workspace(finished.output).summary),
                "tables": summary.tables,
            }
        )
    elif not args.quiet:
        print_summary(finished.output, summary)
    return PARTIAL if skipped else 0


def _plan(args: argparse.Namespace) -> int:
    pipeline = _check_paths(args)
    load()
    from reconstruct.pipeline.plan import plan
    from reconstruct.report.terminal import print_plan

    plans = plan(pipeline, args.images, args.output, _overrides(args.set))
    if args.json:
        keys = ("state", "why", "todo", "total")
        print_json([{"stage": name} | {k: getattr(p, k) for k in keys} for name, p in plans])
    else:
        print_plan(plans)
    return 0


def _compare(args: argparse.Namespace) -> int:
    pipeline = _check_paths(args)
    if args.reference is not None:
        check_exists(args.reference)
    load()
    from reconstruct.comparison.compare import compare
    from reconstruct.comparison.terminal import print_comparison

    found = compare(
        pipeline,
        args.methods,
        images=args.images,
        output=args.output,
        reference=args.reference,
        overrides=_overrides(args.set),
        device=args.device,
        verbosity=int(args.verbose) - int(args.quiet),
    )
    if args.json:
        print_json(found.as_dict())
    elif not args.quiet:
        print_comparison(found)
    return PARTIAL if any(m.error or m.skipped for m in found.methods) else 0


def _check_paths(args: argparse.Namespace) -> Path:
    """The pipeline file. Raises UsageError for a misspelt path, before torch is loaded."""
    pipeline = find_pipeline(args.pipeline)
    if args.images is not None and not Path(args.images).is_file():  # a file: a video
        check_folder(Path(args.images), "; give the folder of photos with --images")
    return pipeline


def _overrides(texts: Sequence[str]) -> dict[str, Any]:
    from reconstruct.config import parse_override

    return dict(parse_override(text) for text in texts)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
