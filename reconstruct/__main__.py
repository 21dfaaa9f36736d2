"""Command line: ``reconstruct COMMAND`` or ``python -m reconstruct COMMAND``.

Parsed arguments end here. What is heavy is imported by the command that needs it, after the paths
that the command was given have been looked at.

Exit status: 0 done; 1 the data did not allow it; 2 wrong use; 3 done, but some photos were skipped;
130 and 143 interrupted by Ctrl-C and by SIGTERM.
"""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reconstruct.errors import ReconstructError, UsageError
from reconstruct.export import FORMATS
from reconstruct.shipped import find_pipeline, pipeline_names
from reconstruct.stopping import STATUS, Terminated, stopping_on_sigterm

_WRONG_PATH = {
    *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EACCES, errno.EPERM),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.ENXIO),
}
"""What the system says of a path that cannot be used, the disk being well."""


def parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    main = argparse.ArgumentParser(
        prog="reconstruct",
        description="From photos to COLMAP models and camera poses, around D2-Net.",
    )
    main.add_argument("--version", action=_Version, help="print the version and leave")
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_run(commands, "run", _run, "run a pipeline")
    _add_run(commands, "plan", _plan, "what would run, and why")
    _add_compare(commands)
    _add_results(commands)
    _add_explaining(commands)
    prepare = _add(commands, "prepare", _prepare, "make training data of a public data set")
    prepare.add_argument("dataset", choices=["megadepth"])
    prepare.add_argument("base", metavar="DIR", type=Path, help="holds Undistorted_SfM and depth")
    prepare.add_argument("--output", required=True, metavar="DIR", type=Path, help="scene files")
    return main


def _add_run(commands: Any, name: str, command: _Command, text: str) -> argparse.ArgumentParser:
    parser = _add(commands, name, command, text)
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
    _add_json(parser)
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


def _add_results(commands: Any) -> None:
    evaluate = _add(commands, "evaluate", _evaluate, "pose errors against a reference model")
    evaluate.add_argument("output", metavar="OUT", type=Path)
    evaluate.add_argument("--reference", required=True, metavar="MODEL_OR_POSES", type=Path)
    evaluate.add_argument(
        "--no-align", action="store_true", help="compare poses as they are (given poses)"
    )
    _add_json(evaluate)
    join = _add(commands, "join", _join, "merge models that share photos")
    join.add_argument(
        "models", metavar="OUT_OR_MODEL", nargs="+", type=Path, help="output folders, or models"
    )
    join.add_argument("--output", required=True, metavar="DIR", type=Path, help="output folder")
    join.add_argument(
        "--min-photos", type=int, default=3, help="photos that must agree on how models lie"
    )
    join.add_argument(
        "--fixed-intrinsics", action="store_true", help="keep focal lengths and distortion"
    )
    _add_json(join)
    view = _add(commands, "view", _view, "models and photos, live in the browser (extra view)")
    view.add_argument("output", metavar="OUT", type=Path, help="output folder, or COLMAP model")
    view.add_argument("--images", metavar="DIR", type=Path, help="the photos, if they moved")
    view.add_argument("--port", type=int, default=8080, help="of the server")
    view.add_argument(
        "--host", default="127.0.0.1", help="where it listens; 0.0.0.0: others may look, too"
    )
    export = _add(commands, "export", _export, "the model in another format")
    export.add_argument("output", metavar="OUT", type=Path)
    export.add_argument(
        "--format",
        required=True,
        choices=sorted(FORMATS),
        help="what to write",
    )


def _add_explaining(commands: Any) -> None:
    init = _add(commands, "init", _init, "print a pipeline file with every setting explained")
    init.add_argument("pipeline", metavar="PIPELINE", help=", ".join(pipeline_names()))
    settings = _add(commands, "settings", _settings, "explain settings of pipeline files")
    settings.add_argument("key", metavar="KEY", nargs="?", help="e.g. extract.local, match.ratio")
    settings.add_argument("--schema", action="store_true", help="JSON schema of pipeline files")
    _add_json(settings)
    doctor = _add(commands, "doctor", _doctor, "what this machine offers, and what photos promise")
    doctor.add_argument("photos", metavar="PHOTOS", nargs="?", type=Path, help="folder of photos")
    doctor.add_argument("--output", metavar="DIR", type=Path, default=Path(), help="where to write")
    _add_json(doctor)
    completion = _add(commands, "completion", _completion, "print a script for TAB in a shell")
    completion.add_argument("shell", choices=["bash", "zsh", "tcsh"])


PARTIAL = 3
"""Exit status of a run that is done, but left some inputs out."""

_Command = Callable[[argparse.Namespace], int]


def _add(commands: Any, name: str, command: _Command, text: str) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    added.set_defaults(run=command)
    return added


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON in place of tables")


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
        status: int = args.run(args)
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
        # Nothing half-written counts as done (see workspace.py), so running again goes on.
        print(f"error: {error}; free or repair the disk, then run again to go on", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; run again to go on", file=sys.stderr)
        return 130
    except Terminated:
        print("terminated; run again to go on", file=sys.stderr)
        return STATUS


def _run(args: argparse.Namespace) -> int:
    pipeline = _check_paths(args)
    from reconstruct.pipeline import run
    from reconstruct.report.terminal import print_summary
    from reconstruct.storage.summary import read_summary
    from reconstruct.workspace import Workspace

    with stopping_on_sigterm():  # after the import of COLMAP: see stopping.py
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
    if args.json:
        _print_json(
            {
                "output": str(finished.output),
                "skipped": summary.skipped,
                "stages": read_summary(Workspace(finished.output).summary),
                "tables": summary.tables,
            }
        )
    elif not args.quiet:
        print_summary(finished.output, summary)
    skipped = len(summary.skipped)
    if skipped:
        print(f"{skipped} input(s) skipped, see the summary: exit status 3", file=sys.stderr)
    return PARTIAL if skipped else 0


def _plan(args: argparse.Namespace) -> int:
    pipeline = _check_paths(args)
    from reconstruct.pipeline import plan
    from reconstruct.report.terminal import print_plan

    plans = plan(pipeline, args.images, args.output, _overrides(args.set))
    if args.json:
        keys = ("state", "why", "todo", "total")
        _print_json([{"stage": name} | {k: getattr(p, k) for k in keys} for name, p in plans])
    else:
        print_plan(plans)
    return 0


def _compare(args: argparse.Namespace) -> int:
    pipeline = _check_paths(args)
    from reconstruct.comparison.compare import compare
    from reconstruct.comparison.terminal import print_comparison

    with stopping_on_sigterm():
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
        _print_json(found.as_dict())
    elif not args.quiet:
        print_comparison(found)
    return PARTIAL if any(m.error or m.skipped for m in found.methods) else 0


def _evaluate(args: argparse.Namespace) -> int:
    _check_folder(args.output)
    from reconstruct.localization.evaluate import evaluate_poses
    from reconstruct.report.terminal import print_metrics, print_table
    from reconstruct.stages.evaluate import evaluate_output

    if args.reference.is_file():  # a list of poses: the truth of queries
        table = evaluate_poses(args.output, args.reference)
        if args.json:
            _print_json(table)
        else:
            print_table("localization", table)
        return 0
    metrics = evaluate_output(args.output, args.reference, align=not args.no_align)
    if args.json:
        _print_json(metrics.as_dict())
    else:
        print_metrics(metrics)
    return 0


def _export(args: argparse.Namespace) -> int:
    _check_folder(args.output)
    from reconstruct.export import export

    print(export(args.output, args.format))
    return 0


def _join(args: argparse.Namespace) -> int:
    for folder in args.models:
        _check_folder(folder)
    from reconstruct.joining import join
    from reconstruct.report.figures import figure
    from reconstruct.report.terminal import print_table

    joined = join(
        args.models,
        args.output,
        min_photos=args.min_photos,
        refine_intrinsics=not args.fixed_intrinsics,
    )
    if args.json:
        _print_json({"output": str(joined.output), "figures": joined.summary.figures})
    else:
        told = [figure(name, value) for name, value in joined.summary.figures["join"].items()]
        print_table("joined", [("figure", "value"), *told])
    return 0


def _view(args: argparse.Namespace) -> int:
    for folder in (args.output, args.images):
        if folder is not None:
            _check_folder(folder)
    from reconstruct.report.view import view

    view(args.output, host=args.host, port=args.port, photos=args.images)
    return 0


def _prepare(args: argparse.Namespace) -> int:
    from reconstruct.training.prepare import prepare_megadepth

    names = prepare_megadepth(args.base, args.output)
    print(f"{args.output}: {len(names)} new scene file(s){': ' if names else ''}{', '.join(names)}")
    return 0


def _init(args: argparse.Namespace) -> int:
    pipeline = find_pipeline(args.pipeline)
    from reconstruct.command.template import commented

    print(commented(pipeline), end="")
    return 0


def _settings(args: argparse.Namespace) -> int:
    from reconstruct.command.listing import as_text
    from reconstruct.command.settings import all_settings, find_settings, json_schema

    if args.schema:
        _print_json(json_schema())
        return 0
    settings = find_settings(args.key) if args.key else all_settings()
    if args.json:
        _print_json([setting.as_dict() for setting in settings])
    else:
        print(as_text(settings))
    return 0


def _doctor(args: argparse.Namespace) -> int:
    if args.photos is not None:
        _check_folder(args.photos)
    from reconstruct.command.doctor import examine_machine
    from reconstruct.command.photos import examine_photos

    findings = examine_machine(args.output)
    if args.photos is not None:
        findings += examine_photos(args.photos)
    if args.json:
        _print_json([asdict(finding) for finding in findings])
    else:
        wide = min(max(len(finding.subject) for finding in findings), 40)
        for finding in findings:
            print(f"{finding.level:<8} {finding.subject:<{wide}} {finding.text}")
    return 1 if any(f.level == "trouble" for f in findings) else 0


def _completion(args: argparse.Namespace) -> int:
    import shtab

    print(shtab.complete(parser(), args.shell))
    return 0


def _check_paths(args: argparse.Namespace) -> Path:
    """The pipeline file. Raises UsageError for a misspelt path, before torch is loaded."""
    pipeline = find_pipeline(args.pipeline)
    if args.images is not None and not Path(args.images).is_file():  # a file: a video
        _check_folder(Path(args.images), "; give the folder of photos with --images")
    return pipeline


def _check_folder(path: Path, advice: str = "") -> None:
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder{advice}")


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, default=str))


def _overrides(texts: Sequence[str]) -> dict[str, Any]:
    from reconstruct.config import parse_override

    return dict(parse_override(text) for text in texts)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
    sys.exit(main())
