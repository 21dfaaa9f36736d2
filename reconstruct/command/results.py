"""``reconstruct evaluate``, ``join``, ``view`` and ``export``: what is done with a finished run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from reconstruct.command.arguments import (
    add_command,
    add_json,
    check_exists,
    check_folder,
    load,
    print_json,
)
from reconstruct.export import FORMATS


def add_to(commands: Any) -> None:
    """Add these subcommands to the command line."""
    evaluate = add_command(commands, "evaluate", _evaluate, "pose errors against a reference model")
    evaluate.add_argument("output", metavar="OUT", type=Path)
    evaluate.add_argument("--reference", required=True, metavar="MODEL_OR_POSES", type=Path)
    evaluate.add_argument(
        "--no-align", action="store_true", help="compare poses as they are (given poses)"
    )
    add_json(evaluate)
    join = add_command(commands, "join", _join, "merge models that share photos or match")
    join.add_argument(
        "models", metavar="OUT_OR_MODEL", nargs="+", type=Path, help="output folders, or models"
    )
    join.add_argument("--output", required=True, metavar="DIR", type=Path, help="output folder")
    join.add_argument(
        "--min-photos", type=int, default=3, help="photos that must agree on how models lie"
    )
    join.add_argument(
        "--min-points", type=int, default=30, help="without shared photos: points that must match"
    )
    join.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    join.add_argument(
        "--fixed-intrinsics",
        action="store_true",
        help="keep focal lengths and distortion, as those are that were given",
    )
    add_json(join)
    view = add_command(
        commands, "view", _view, "models and photos, live in the browser (extra view)"
    )
    view.add_argument("output", metavar="OUT", type=Path, help="output folder, or COLMAP model")
    view.add_argument("--images", metavar="DIR", type=Path, help="the photos, if they moved")
    view.add_argument("--port", type=int, default=8080, help="of the server")
    view.add_argument(
        "--host", default="127.0.0.1", help="where it listens; 0.0.0.0: others may look, too"
    )
    export = add_command(commands, "export", _export, "the model in another format")
    export.add_argument("output", metavar="OUT", type=Path)
    export.add_argument(
        "--format",
        required=True,
        choices=sorted(FORMATS),
        help="what to write",
    )
    export.add_argument("--images", metavar="DIR", type=Path, help="the photos, if they moved")


def _evaluate(args: argparse.Namespace) -> int:
    check_folder(args.output)
    check_exists(args.reference)
    load()
    from reconstruct.localization.evaluate import evaluate_poses
    from reconstruct.report.terminal import print_metrics, print_table
    from reconstruct.stages.evaluate import evaluate_output

    if args.reference.is_file():  # a list of poses: the truth of queries
        table = evaluate_poses(args.output, args.reference)
        if args.json:
            print_json(table)
        else:
            print_table("localization", table)
        return 0
    metrics = evaluate_output(args.output, args.reference, align=not args.no_align)
    if args.json:
        print_json(metrics.as_dict())
    else:
        print_metrics(metrics)
    return 0


def _join(args: argparse.Namespace) -> int:
    for folder in args.models:
        check_folder(folder)
    load()
    from reconstruct import colmap
    from reconstruct.joining import join
    from reconstruct.report.figures import figure
    from reconstruct.report.terminal import print_table

    colmap.set_verbosity(False)
    joined = join(
        args.models,
        args.output,
        min_photos=args.min_photos,
        min_points=args.min_points,
        device=args.device,
        refine_intrinsics=False if args.fixed_intrinsics else None,
    )
    if args.json:
        print_json({"output": str(joined.output), "figures": joined.summary.figures})
    else:
        told = [figure(name, value) for name, value in joined.summary.figures["join"].items()]
        print_table("joined", [("figure", "value"), *told])
    return 0


def _view(args: argparse.Namespace) -> int:
    for folder in (args.output, args.images):
        if folder is not None:
            check_folder(folder)
    load()
    from reconstruct.report.view import view

    view(args.output, host=args.host, port=args.port, photos=args.images)
    return 0


def _export(args: argparse.Namespace) -> int:
    for folder in (args.output, args.images):
        if folder is not None:
            check_folder(folder)
    load()
    from reconstruct.export import export

    print(export(args.output, args.format, args.images))
    return 0
