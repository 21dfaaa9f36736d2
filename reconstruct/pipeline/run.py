"""The run of a pipeline file, stage after stage."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reconstruct import colmap
from reconstruct.cluster.connection import open_executor
from reconstruct.cluster.settings import parse_cluster
from reconstruct.errors import UsageError, suggestion
from reconstruct.memory import peak_mb, restart_peak
from reconstruct.pipeline.config import AnyConfig, load_config, with_images
from reconstruct.pipeline.context import open_context
from reconstruct.pipeline.order import build_stages
from reconstruct.pipeline.record import update_report, write_run_file
from reconstruct.progress import Reporter, logging_to
from reconstruct.stages import Context, Stage
from reconstruct.stages.outcome import Run
from reconstruct.stages.pair import Pair
from reconstruct.stages.turn import Turn
from reconstruct.storage.summary import is_of, read_summary, stage_entry, write_summary
from reconstruct.torch_device import resolve_device
from reconstruct.workspace import Workspace

logger = logging.getLogger("reconstruct")


def run(
    pipeline: Path | str,
    images: Path | str | None = None,
    output: Path | str | None = None,
    overrides: Mapping[str, Any] | None = None,
    device: str = "auto",
    only: Sequence[str] = (),
    force: Sequence[str] = (),
    verbosity: int = 0,
    cluster: str | None = None,
) -> Run:
    """Run a pipeline file; what is up to date in ``output`` is not done again.

    Args:
        pipeline: Path of a YAML file, or the name of one of the package, e.g. ``sfm``.
        images: Replaces ``dataset.images``, the folder of photos; a file: ``dataset.path``, the
            clip of pipeline ``video``.
        output: Output folder; None: the one that the file names, or ``output/NAME``.
        overrides: Dotted key -> value, e.g. ``{"extract.local.multiscale": True}``.
        device: auto, cpu, cuda, cuda:N or mps.
        only: Names of the stages to run.
        force: Names of stages to run even if they are up to date.
        verbosity: -1 only errors, 0 progress, 1 also COLMAP's log.
        cluster: As ``--cluster``: ``local:4`` for worker processes, or the address of a Dask
            scheduler.

    Returns:
        What the run left: its folder, its figures, the model.

    Raises:
        UsageError: Wrong settings, a missing folder, or an output folder in use.
        DataError: The photos do not allow it.
    """
    where = {} if cluster is None else parse_cluster(cluster)
    where = {f"cluster.{key}": value for key, value in where.items()}
    config = load_config(pipeline, with_images(images, overrides) | where)
    return run_config(config, output, device, only, force, verbosity)


def run_config(
    config: AnyConfig,
    output: Path | str | None = None,
    device: str = "auto",
    only: Sequence[str] = (),
    force: Sequence[str] = (),
    verbosity: int = 0,
) -> Run:
    """As `run`, for settings that have been read already."""
    reporter = Reporter(verbosity)
    colmap.set_verbosity(verbosity > 0)
    workspace = Workspace(output or config.output or Path("output") / config.name)
    with (
        workspace.lock(),
        logging_to(reporter, workspace.log),
        open_executor(config.cluster, workspace.root) as executor,
    ):
        context = open_context(config, workspace.root, device, reporter, executor)
        stages = build_stages(config, context)
        _check_names([*only, *force], stages)
        write_run_file(workspace, config, device)
        for stage in stages:
            if isinstance(stage, Pair) and (advice := stage.advice()):
                logger.warning(advice)
            if stage.name in force:
                stage.discard()
        execute(stages, context, only)
        made = any(stage.made for stage in stages)
        if made:
            write_run_file(workspace, config, str(resolve_device(device)))
        update_report(config, context, made)
        return Run(workspace.root, context.summary)


def execute(stages: Sequence[Stage], context: Context, only: Sequence[str] = ()) -> None:
    """Run the stages in their order; with ``only``, those not named in it are left as they are."""
    path, summary = context.workspace.summary, context.summary
    entries = read_summary(path)
    for stage in stages:
        if only and stage.name not in only:
            stage.settle()
            continue
        restart_peak()
        started = time.monotonic()
        stage.run()
        seconds = time.monotonic() - started
        logger.info("%s: done in %.1f s", stage.name, seconds)
        left, figures = stage.fingerprint_of_all(), summary.figures.get(stage.name, {})
        if stage.made:
            entries[stage.name] = stage_entry(seconds, figures, peak_mb()) | {"of": left}
        elif not is_of(entries.get(stage.name), left):
            entries[stage.name] = {"figures": figures, "of": left}  # how long it took, nobody knows
        else:
            continue
        if isinstance(stage, Turn):  # those before it may have run again
            for before in stage.again:
                if before.made:
                    again = {"figures": summary.figures[before.name]}
                    entries[before.name] |= again | {"of": before.fingerprint_of_all()}
        write_summary(path, entries, summary.skipped)
    for stage in stages:
        entry = entries.get(stage.name, {})
        for key, told in (("seconds", summary.seconds), ("memory_mb", summary.memory_mb)):
            if key in entry:
                told[stage.name] = entry[key]


def _check_names(names: Sequence[str], stages: Sequence[Stage]) -> None:
    valid = [stage.name for stage in stages]
    for name in names:
        if name not in valid:
            raise UsageError(f"no stage {name!r} in this pipeline{suggestion(name, valid)}")
