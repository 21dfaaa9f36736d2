"""Run each method over the same photos, and lay what they made side by side.

OUT/LABEL/        the run of each method, resumed as any run
OUT/compare.json  figures, seconds, pose errors, agreement
OUT/compare.html  the same to look at, with models and matches
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconstruct import colmap
from reconstruct.benchmark.method import write_json
from reconstruct.comparison.methods import MethodSpec, overrides_for, parse_methods, spec
from reconstruct.comparison.outcome import Comparison, MethodOutcome, agreements, pose_errors
from reconstruct.comparison.page import PAGE, write_page
from reconstruct.config import apply_overrides, read_yaml
from reconstruct.datasets import Dataset
from reconstruct.datasets.loading import load_dataset
from reconstruct.errors import ConfigError, DataError, ReconstructError, UsageError
from reconstruct.ownership import is_own, mark
from reconstruct.pipeline.config import BY_SECTION, PipelineConfig, load_config
from reconstruct.pipeline.run import run
from reconstruct.progress import Reporter
from reconstruct.report.page import optional
from reconstruct.shipped import find_pipeline
from reconstruct.workspace import Workspace

logger = logging.getLogger("reconstruct")

RESULTS = "compare.json"
Methods = str | Sequence[str] | Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A method's run before it is started."""

    method: MethodSpec
    overrides: Mapping[str, Any]
    config: PipelineConfig
    output: Path


def compare(
    pipeline: Path | str,
    methods: Methods,
    images: Path | str | None = None,
    output: Path | str | None = None,
    reference: Path | str | None = None,
    overrides: Mapping[str, Any] | None = None,
    device: str = "auto",
    verbosity: int = 0,
) -> Comparison:
    """Run several methods over the same photos and compare their maps.

    Each method runs in a folder of its own below ``output``, where what is up to date is not done
    again. A method that fails is told with its reason; the others stand.

    Args:
        pipeline: Path of a YAML file with a section ``map``, or the name of one of the package.
        methods: Texts as on the command line, such as ``["sift", "disk+mutual_nn",
            "upright=name=sift,upright=true"]``, or label -> dotted key -> value.
        images: Replaces ``dataset.images``.
        output: Folder of all runs; None: ``output/NAME_compare``, with the pipeline's name.
        reference: COLMAP model with true poses; None: the one that section ``evaluate`` or the
            data set names, if any.
        overrides: Dotted key -> value, for all methods.
        device: auto, cpu, cuda, cuda:N or mps.
        verbosity: -1 only errors, 0 progress, 1 also COLMAP's log.

    Returns:
        The figures of all methods, also written to compare.json and compare.html.

    Raises:
        UsageError: A method or setting is wrong, or ``output`` holds somebody else's files of these
            names; nothing has run then.
        DataError: No method made a map.
    """
    common = dict(overrides or {})
    if images is not None:
        common["dataset.images"] = str(images)
    jobs = _jobs(pipeline, _specs(methods), common, output)
    root = jobs[0].output.parent
    truth = None if reference is None else colmap.model_folder(Path(reference))
    if truth is not None:
        colmap.check_model(truth)
    known = any(is_own(job.output) for job in jobs)  # by an older release
    mark(root, [root / RESULTS, root / PAGE], known=known)
    console = Reporter(verbosity).console
    outcomes = []
    for number, job in enumerate(jobs, 1):
        console.print(f"method {number} of {len(jobs)}: {job.method.label}", markup=False)
        outcomes.append(_outcome(job, pipeline, truth, device, verbosity))
    if all(found.error for found in outcomes):
        reasons = "\n".join(f"{found.label}: {found.error}" for found in outcomes)
        raise DataError(f"no method made a map:\n{reasons}")
    comparison = Comparison(
        output=root,
        methods=tuple(outcomes),
        settings={job.method.label: job.method.settings for job in jobs},
        agreements=agreements(outcomes),
    )
    write_json(root / RESULTS, comparison.as_dict())
    with optional("compare.html"):
        write_page(comparison, f"{jobs[0].config.name}: methods compared", _dataset(jobs[0]))
    return comparison


def _specs(methods: Methods) -> list[MethodSpec]:
    if isinstance(methods, Mapping):
        return [spec(label, settings) for label, settings in methods.items()]
    return parse_methods([methods] if isinstance(methods, str) else methods)


def _jobs(
    pipeline: Path | str,
    methods: Sequence[MethodSpec],
    common: Mapping[str, Any],
    output: Path | str | None,
) -> list[_Job]:
    """Raises UsageError if one of the methods does not make a valid pipeline with a map."""
    data = apply_overrides(read_yaml(find_pipeline(pipeline)), common)
    if "map" not in data or any(section in data for section in BY_SECTION):
        raise UsageError(
            f"{pipeline}: compare needs a pipeline file with a section `map`, such as sfm; "
            "one with `methods`, `rows` or `features` compares by itself: reconstruct run"
        )
    jobs = []
    for method in methods:
        own = {**common, **overrides_for(method, data)}
        try:
            config = load_config(pipeline, own)
        except ConfigError as error:
            raise ConfigError(f"method {method.label}: {error}") from error
        if not isinstance(config, PipelineConfig) or config.map is None:
            raise UsageError(f"method {method.label}: needs the section `map`; leave it in")
        root = Path(output or config.output or Path("output") / f"{config.name}_compare")
        jobs.append(_Job(method=method, overrides=own, config=config, output=root / method.label))
    return jobs


def _outcome(
    job: _Job, pipeline: Path | str, truth: Path | None, device: str, verbosity: int
) -> MethodOutcome:
    label, output = job.method.label, job.output
    try:
        done = run(pipeline, None, output, job.overrides, device=device, verbosity=verbosity)
        reference, align = truth or _reference(job), job.config.evaluate is None
        align = align or bool(job.config.evaluate and job.config.evaluate.align)
        metrics = pose_errors(output, reference, align=align)
    except ReconstructError as error:
        logger.error("%s: %s", label, error)
        return MethodOutcome(label=label, output=output, error=str(error))
    summary = done.summary
    return MethodOutcome(
        label=label,
        output=output,
        figures=summary.figures,
        seconds=summary.seconds,
        skipped=summary.skipped,
        metrics=metrics,
    )


def _reference(job: _Job) -> Path | None:
    """The model that the pipeline itself evaluates against."""
    evaluate = job.config.evaluate
    if evaluate is None:
        return None
    return Path(evaluate.reference) if evaluate.reference else _dataset(job).reference


def _dataset(job: _Job) -> Dataset:
    return load_dataset(job.config.dataset, Workspace(job.output).dataset)
