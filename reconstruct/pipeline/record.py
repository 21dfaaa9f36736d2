"""What a run writes about itself: run.yaml with its settings and versions, and report.html."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

import yaml

from reconstruct.atomic import atomic_path
from reconstruct.fingerprints import fingerprint
from reconstruct.pipeline.config import AnyConfig
from reconstruct.report.page import optional, shown_fingerprint, write_report
from reconstruct.stages import Context
from reconstruct.storage.summary import read_summary
from reconstruct.workspace import Workspace


def write_run_file(workspace: Workspace, config: AnyConfig, device: str) -> None:
    """Write run.yaml: the settings, the device, the versions of the libraries, and the command."""
    packages = ("reconstruct", "torch", "pycolmap", "numpy", "opencv-python-headless", "h5py")
    versions = {"python": platform.python_version()}
    versions |= {name: metadata.version(name) for name in packages if _installed(name)}
    content = {
        "config": config.model_dump(mode="json", by_alias=True),
        "device": device,
        "versions": versions,
        "command": " ".join(sys.argv),
    }
    with atomic_path(workspace.config) as temporary:
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        temporary.write_text(text, encoding="utf-8")


def update_report(config: AnyConfig, context: Context, made: bool) -> None:
    """Write report.html, unless nothing was made in this run and the page is up to date.

    The page is out of date after a run that was killed before it wrote one: summary.json then has
    other entries.
    """
    workspace, summary = context.workspace, context.summary
    settings = config.model_dump(mode="json", by_alias=True)
    version = metadata.version("reconstruct") if _installed("reconstruct") else None
    entries = read_summary(workspace.summary)
    wanted = fingerprint("report", version, settings, summary.skipped, entries)
    if not made and shown_fingerprint(workspace) == wanted:
        return
    with optional("report.html"):
        write_report(workspace, summary, config, context.dataset, wanted)
    workspace.renew_stamp(workspace.database)  # COLMAP's library, which reads it, marks it


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
