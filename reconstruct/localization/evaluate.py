"""Evaluate queries: poses.txt against ground truth -> metrics.json, and the server's file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reconstruct import colmap
from reconstruct.errors import ConfigError, EstimationError, UsageError
from reconstruct.evaluation.localization import (
    THRESHOLDS,
    LocalizationMetrics,
    Threshold,
    grouped_metrics,
    metrics_table,
    query_errors,
)
from reconstruct.evaluation.poses import transform_pose
from reconstruct.evaluation.submission import check_submission, write_submission
from reconstruct.fingerprints import file_hash, fingerprint, tree_hash
from reconstruct.localization.localize import WritePoses
from reconstruct.stages import Context
from reconstruct.stages.evaluate import (
    EvaluateConfig,
    check_metrics,
    read_metrics,
    similarity_to,
    write_metrics,
)
from reconstruct.stages.whole import WholeStage
from reconstruct.storage.poses import read_poses
from reconstruct.workspace import Workspace

Poses = Mapping[str, NDArray[np.float64]]


def read_truth(path: Path) -> dict[str, NDArray[np.float64]]:
    """(3, 4) poses by name, from a COLMAP model folder, a list of poses, or a folder of lists.

    Raises UsageError.
    """
    if path.is_dir() and not any(path.glob("cameras.*")) and any(path.glob("*.txt")):
        lists = [read_poses(file) for file in sorted(path.glob("*.txt"))]
        return {name: pose for poses in lists for name, pose in poses.items()}
    if path.is_dir():
        return colmap.model_poses(colmap.read_model(colmap.model_folder(path)))
    if not path.is_file():
        raise UsageError(f"{path}: no such file or COLMAP model (evaluate.reference)")
    return read_poses(path)


def evaluate_queries(
    output: Path,
    reference: Path,
    groups: Mapping[str, str],
    thresholds: Sequence[Threshold] = THRESHOLDS,
    *,
    align: bool = False,
) -> dict[str, LocalizationMetrics]:
    """Metrics of ``output``'s poses.txt, also written to its metrics.json.

    groups: every query -> what it is reported under. align: the map has a coordinate frame of its
    own (structure from motion) and is aligned with the reference by those of its images that have a
    pose there. Raises EstimationError if the reference has no pose of a query.
    """
    workspace = Workspace(output)
    poses, truth = read_poses(workspace.poses), read_truth(reference)
    if align:
        mapped = colmap.model_poses(colmap.read_model(workspace.sparse))
        moved = similarity_to(mapped, truth)
        poses = {name: transform_pose(pose, *moved) for name, pose in poses.items()}
    known = {name: pose for name, pose in truth.items() if name in groups}
    if not known:
        raise EstimationError(f"{reference}: has no pose of any query (by name)")
    metrics = grouped_metrics(query_errors(poses, known), groups, thresholds)
    write_metrics(workspace, {"queries": {name: m.as_dict() for name, m in metrics.items()}})
    return metrics


def evaluate_poses(output: Path, reference: Path) -> list[list[str]]:
    """`evaluate_queries` for all poses in the list ``reference``, as a table."""
    if not Workspace(output).poses.is_file():
        raise UsageError(f"{output}: no poses.txt here; run a pipeline with section localize first")
    check_metrics(Workspace(output))
    groups = dict.fromkeys(read_truth(reference), "queries")
    return metrics_table(evaluate_queries(output, reference, groups))


def rows_table(metrics: Mapping[str, LocalizationMetrics]) -> list[list[str]]:
    """Rows of text for people, the header first."""
    shares = list(next(iter(metrics.values())).within_percent)
    table = [["row", "localized", *shares, "median m", "median deg"]]
    for name, m in metrics.items():
        medians = (m.position_median, m.rotation_median_deg)
        texts = ["failed" if value is None else f"{value:.3g}" for value in medians]
        percent = [f"{share:.1f}" for share in m.within_percent.values()]
        table.append([name, f"{m.localized} of {m.queries}", *percent, *texts])
    return table


class EvaluateQueries(WholeStage):
    """The stage, in place of `Evaluate` where queries were localized."""

    name = "evaluate"

    def __init__(self, context: Context, config: EvaluateConfig, poses: WritePoses) -> None:
        super().__init__(context, context.workspace.metrics, [poses])
        self.config = config
        self.poses = poses
        given = colmap.model_folder(Path(config.reference)) if config.reference else None
        self.reference = given or context.dataset.reference
        if self.reference is None and config.submission is None:
            raise ConfigError(
                "evaluate: needs `reference` (poses of the queries: a list, or a COLMAP model) or "
                "`submission` (a name for the server's file)"
            )
        self.groups = {query.name: query.group for query in context.dataset.queries}

    def find_fingerprint(self) -> str | None:
        """Fingerprint over settings, the ground truth's content, and poses.txt."""
        before, reference = self.poses.fingerprint(), self.reference
        if before is None:
            return None
        truth = None
        if reference is not None:
            truth = tree_hash(reference) if reference.is_dir() else file_hash(reference)
        groups = sorted(self.groups.items())
        return fingerprint("query metrics", self.config.identity(), truth, groups, before)

    def make(self) -> None:
        """Write metrics.json and, where a name is given for it, the submission."""
        if self.reference is not None:
            evaluate_queries(
                self.workspace.root,
                self.reference,
                self.groups,
                self.config.thresholds,
                align=self.config.align and self.poses.localize.map.reference is None,
            )
        if self.config.submission is not None:
            self._submit(self.config.submission)

    def figures(self) -> dict[str, Any]:
        """How many queries were localized; the table of errors goes to the summary."""
        metrics = read_metrics(self.workspace)
        figures: dict[str, Any] = {}
        if self.reference is not None:
            groups = {
                name: LocalizationMetrics(**values) for name, values in metrics["queries"].items()
            }
            self.context.summary.tables["localization"] = metrics_table(groups)
            everything = groups["all"]
            figures |= {"queries": everything.queries, "localized": everything.localized}
        if self.config.submission is not None:
            figures |= {"submission": metrics["submission"], "submission_check": "valid"}
        return figures

    def _submit(self, name: str) -> None:
        workspace = self.workspace
        path = workspace.root / f"Aachen_eval_[{name}].txt"
        write_submission(path, read_poses(workspace.poses))
        problems = check_submission(path, self.groups)
        if problems:
            raise EstimationError(f"{path}: not a valid submission: {'; '.join(problems[:5])}")
        write_metrics(workspace, {"submission": path.name})
