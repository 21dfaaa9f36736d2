"""report.html: collects what a run left, renders it, and writes it in one piece."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from reconstruct.atomic import atomic_path
from reconstruct.datasets import Dataset
from reconstruct.errors import ReconstructError
from reconstruct.report.collect import collect
from reconstruct.report.render import render
from reconstruct.stages import Summary
from reconstruct.workspace import Workspace

logger = logging.getLogger("reconstruct")

MARK = "\n<!-- shows {:>64} -->\n"
"""Last line of the page."""


def shown_fingerprint(workspace: Workspace) -> str | None:
    """The fingerprint of what report.html shows; None if there is no page, or it was cut off."""
    try:
        with open(workspace.report, "rb") as file:
            file.seek(-len(MARK.format("")), os.SEEK_END)
            tail = file.read().decode("ascii", "replace")
    except OSError:
        return None
    found = tail.strip().removeprefix("<!-- shows ").removesuffix(" -->").strip()
    return found if tail == MARK.format(found) else None


def write_report(
    workspace: Workspace,
    summary: Summary,
    config: BaseModel | Mapping[str, Any],
    dataset: Dataset | None = None,
    fingerprint: str = "",
) -> None:
    """Write report.html: one file that opens anywhere, without a server.

    Args:
        summary: of the run, skipped inputs and figures by stage.
        config: the run's configuration; as a section, the page also says what differs from the
            defaults, and shows queries with their cameras.
        dataset: where the photos are; None: in the folder that the configuration names.
        fingerprint: of what it shows, for `shown_fingerprint`.
    """
    page = render(collect(workspace, summary, config, dataset)) + MARK.format(fingerprint)
    with atomic_path(workspace.report) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


@contextlib.contextmanager
def optional(page: str) -> Iterator[None]:
    """Within it a page of this name is written, which may go wrong: that is no reason to lose what
    was computed. It is told in one line; the traceback is in log.txt alone."""
    try:
        yield
    except Exception as error:
        told = error if isinstance(error, (OSError, ReconstructError)) else repr(error)
        logger.warning("%s could not be written; all else is there (%s)", page, told)
        logger.debug("%s", page, exc_info=True)
