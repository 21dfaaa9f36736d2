"""``reconstruct init``, ``settings`` and ``doctor``: what to know before a run."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reconstruct.command.arguments import add_command, add_json, check_folder, load, print_json
from reconstruct.shipped import find_pipeline, pipeline_names


def add_to(commands: Any) -> None:
    """Add these subcommands to the command line."""
    init = add_command(
        commands, "init", _init, "print a pipeline file with every setting explained"
    )
    init.add_argument("pipeline", metavar="PIPELINE", help=", ".join(pipeline_names()))
    settings = add_command(commands, "settings", _settings, "explain settings of pipeline files")
    settings.add_argument("key", metavar="KEY", nargs="?", help="e.g. extract.local, match.ratio")
    settings.add_argument("--schema", action="store_true", help="JSON schema of pipeline files")
    add_json(settings)
    doctor = add_command(
        commands, "doctor", _doctor, "what this machine offers, and what photos promise"
    )
    doctor.add_argument("photos", metavar="PHOTOS", nargs="?", type=Path, help="folder of photos")
    doctor.add_argument("--output", metavar="DIR", type=Path, default=Path(), help="where to write")
    add_json(doctor)


def _init(args: argparse.Namespace) -> int:
    pipeline = find_pipeline(args.pipeline)
    load()
    from reconstruct.command.template import commented

    print(commented(pipeline), end="")
    return 0


def _settings(args: argparse.Namespace) -> int:
    load()
    from reconstruct.command.listing import as_text
    from reconstruct.command.settings import all_settings, find_settings, json_schema

    if args.schema:
        print_json(json_schema())
        return 0
    settings = find_settings(args.key) if args.key else all_settings()
    if args.json:
        print_json([setting.as_dict() for setting in settings])
    else:
        print(as_text(settings))
    return 0


def _doctor(args: argparse.Namespace) -> int:
    if args.photos is not None:
        check_folder(args.photos)
    from reconstruct.command.doctor import examine_machine
    from reconstruct.command.photos import examine_photos

    findings = examine_machine(args.output)
    if args.photos is not None:
        findings += examine_photos(args.photos)
    if args.json:
        print_json([asdict(finding) for finding in findings])
    else:
        wide = min(max(len(finding.subject) for finding in findings), 40)
        for finding in findings:
            print(f"{finding.level:<8} {finding.subject:<{wide}} {finding.text}")
    return 1 if any(f.level == "trouble" for f in findings) else 0
