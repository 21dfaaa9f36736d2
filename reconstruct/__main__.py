"""Command line: ``python -m reconstruct run|plan|evaluate|export|prepare``.

Parsed arguments end here.

Exit status: 0 done; 1 the data did not allow it, or some photos were skipped; 2 wrong use.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reconstruct.config import parse_override
from reconstruct.errors import ReconstructError
from reconstruct.export import FORMATS


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    main = argparse.ArgumentParser(
        prog="python -m reconstruct",
        description="From photos to COLMAP models and camera poses, around D2-Net.",
    )
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (("run", "run a pipeline file"), ("plan", "what would run, and why")):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("pipeline", metavar="PIPELINE.yaml")
        command.add_argument("--images", metavar="DIR", help="folder of photos")
        command.add_argument("--output", metavar="DIR", help="output folder")
        command.add_argument(
            "--set",
            metavar="KEY=VALUE",
            action="append",
            default=[],
            help="replace a setting, e.g. extract.local.multiscale=true (may be repeated)",
        )
        if name == "run":
            command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
            command.add_argument("--only", default="", help="run just these stages (a,b)")
            command.add_argument("--force", default="", help="run these even if up to date (a,b)")
            volume = command.add_mutually_exclusive_group()
            volume.add_argument("-v", "--verbose", action="store_true", help="COLMAP's log too")
            volume.add_argument("-q", "--quiet", action="store_true", help="errors only")
    evaluate = commands.add_parser("evaluate", help="pose errors against a reference model")
    evaluate.add_argument("output", metavar="OUT", type=Path)
    evaluate.add_argument("--reference", required=True, metavar="MODEL_OR_POSES", type=Path)
    evaluate.add_argument(
        "--no-align", action="store_true", help="compare poses as they are (given poses)"
    )
    export = commands.add_parser("export", help="the model in another format")
    export.add_argument("output", metavar="OUT", type=Path)
    export.add_argument(
        "--format",
        required=True,
        choices=sorted(FORMATS),
        help="what to write",
    )
    prepare = commands.add_parser("prepare", help="make training data of a public data set")
    prepare.add_argument("dataset", choices=["megadepth"])
    prepare.add_argument("base", metavar="DIR", type=Path, help="holds Undistorted_SfM and depth")
    prepare.add_argument("--output", required=True, metavar="DIR", type=Path, help="scene files")
    return main


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a photo's name may not fit its encoding
    args = parser().parse_args(arguments)
    commands = {
        "run": _run,
        "plan": _plan,
        "evaluate": _evaluate,
        "export": _export,
        "prepare": _prepare,
    }
    try:
        return commands[args.command](args)
    except ReconstructError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        # Nothing half-written counts as done (see workspace.py), so running again goes on.
        print(f"error: {error}; free or repair the disk, then run again to go on", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run again to go on", file=sys.stderr)
        return 130


def _run(args: argparse.Namespace) -> int:
    from reconstruct.pipeline import run
    from reconstruct.report.terminal import print_summary

    finished = run(
        args.pipeline,
        images=args.images,
        output=args.output,
        overrides=_overrides(args.set),
        device=args.device,
        only=_names(args.only),
        force=_names(args.force),
        verbosity=int(args.verbose) - int(args.quiet),
    )
    if not args.quiet:
        print_summary(finished.output, finished.summary)
    skipped = len(finished.summary.skipped)
    if skipped:
        print(f"{skipped} input(s) skipped, see the summary: exit status 1", file=sys.stderr)
    return 1 if skipped else 0


def _plan(args: argparse.Namespace) -> int:
    from reconstruct.pipeline import plan
    from reconstruct.report.terminal import print_plan

    print_plan(plan(args.pipeline, args.images, args.output, _overrides(args.set)))
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from reconstruct.localization.evaluate import evaluate_poses
    from reconstruct.report.terminal import print_metrics, print_table
    from reconstruct.stages.evaluate import evaluate_output

    if args.reference.is_file():  # a list of poses: the truth of queries
        print_table("localization", evaluate_poses(args.output, args.reference))
        return 0
    print_metrics(evaluate_output(args.output, args.reference, align=not args.no_align))
    return 0


def _export(args: argparse.Namespace) -> int:
    from reconstruct.export import export

    print(export(args.output, args.format))
    return 0


def _prepare(args: argparse.Namespace) -> int:
    from reconstruct.training.prepare import prepare_megadepth

    names = prepare_megadepth(args.base, args.output)
    print(f"{args.output}: {len(names)} new scene file(s){': ' if names else ''}{', '.join(names)}")
    return 0


def _overrides(texts: Sequence[str]) -> dict[str, Any]:
    return dict(parse_override(text) for text in texts)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    sys.exit(main())
