"""Evaluate: a model against reference poses -> metrics.json."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from reconstruct import colmap
from reconstruct.atomic import atomic_path
from reconstruct.config import NotIdentity, Section
from reconstruct.errors import ConfigError, UsageError
from reconstruct.evaluation.localization import THRESHOLDS
from reconstruct.evaluation.poses import (
    PoseMetrics,
    Poses,
    Similarity,
    pose_metrics,
    similarity,
    transform_pose,
)
from reconstruct.files import read_json
from reconstruct.fingerprints import fingerprint, tree_hash
from reconstruct.geometry import projection_center
from reconstruct.ownership import is_own
from reconstruct.stages import Context
from reconstruct.stages.map import Map
from reconstruct.stages.map_uncertainty import model_uncertainty
from reconstruct.stages.whole import WholeStage
from reconstruct.storage.uncertainty import Deviation
from reconstruct.workspace import Workspace


class EvaluateConfig(Section):
    """Section ``evaluate``."""

    reference: Annotated[str | None, NotIdentity] = None
    """COLMAP model with ground-truth poses; null: the one that comes with the data set."""
    align: bool = True
    """Align the model with the reference by a similarity first; false where poses were given."""
    thresholds: tuple[Annotated[tuple[float, float], Field(strict=False)], ...] = Field(
        THRESHOLDS, strict=False
    )
    """Limits for queries: position error in metres and rotation error in degrees."""
    submission: str | None = None
    """Write ``Aachen_eval_[NAME].txt`` for visuallocalization.net, the poses of queries."""


def similarity_to(estimated: Poses, reference: Poses) -> Similarity:
    """The similarity reference_from_estimated that fits camera centres best.

    Raises EstimationError if fewer than three cameras, or only ones on a line, are in both.
    """
    common = sorted(set(estimated) & set(reference))
    source = np.array([projection_center(estimated[name]) for name in common]).reshape(-1, 3)
    target = np.array([projection_center(reference[name]) for name in common]).reshape(-1, 3)
    return similarity(source, target)


def aligned(estimated: Poses, reference: Poses) -> Poses:
    """``estimated`` moved onto ``reference`` by `similarity_to`, which may raise."""
    moved = similarity_to(estimated, reference)
    return {name: transform_pose(pose, *moved) for name, pose in estimated.items()}


def evaluate_output(output: Path, reference: Path, *, align: bool = True) -> PoseMetrics:
    """Metrics of ``output``'s largest model, also written to its metrics.json.

    Raises UsageError if there is no model, or a metrics.json of somebody else's.
    """
    workspace = Workspace(output)
    check_metrics(workspace)
    if not workspace.sparse.is_dir():
        raise UsageError(f"{output}: no mapped model (sparse/) here; run the pipeline first")
    estimated = colmap.model_poses(colmap.read_model(workspace.sparse))
    truth = colmap.model_poses(colmap.read_model(reference))
    scale = similarity_to(estimated, truth)[0] if align else 1.0
    metrics = pose_metrics(aligned(estimated, truth) if align else estimated, truth)
    expected = expected_position_rms(model_uncertainty(workspace.sparse), set(truth), scale)
    write_metrics(workspace, {"poses": metrics.as_dict() | expected})
    return metrics


def check_metrics(workspace: Workspace) -> None:
    """Raises UsageError if there is a metrics.json which this program did not write, and to which
    nothing can be added."""
    path = workspace.metrics
    if path.exists() and not read_metrics(workspace) and not is_own(workspace.root):
        raise UsageError(f"{path}: not of this program's making; move it elsewhere")


def expected_position_rms(
    uncertainty: Mapping[str, Deviation], names: Collection[str], scale: float
) -> dict[str, float]:
    """What a model expects of its ``position_rms`` over the images ``names``, times ``scale``."""
    variances = [found.position**2 for name, found in uncertainty.items() if name in names]
    rms = scale * float(np.sqrt(np.mean(variances))) if variances else None
    return {} if rms is None else {"position_rms_expected": rms}


def write_metrics(workspace: Workspace, values: dict[str, Any]) -> None:
    """Add ``values`` to metrics.json, replacing those of the same name."""
    known = read_metrics(workspace)
    with atomic_path(workspace.metrics) as temporary:
        temporary.write_text(json.dumps(known | values, indent=2) + "\n", encoding="utf-8")


def read_metrics(workspace: Workspace) -> dict[str, Any]:
    """metrics.json; empty if there is none, or none that can be read."""
    try:
        values = read_json(workspace.metrics)
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


class Evaluate(WholeStage):
    """The stage."""

    name = "evaluate"

    def __init__(self, context: Context, config: EvaluateConfig, mapped: Map) -> None:
        super().__init__(context, context.workspace.metrics, [mapped])
        self.config = config
        self.map = mapped
        folder = Path(config.reference) if config.reference else context.dataset.reference
        if folder is None:
            raise ConfigError(
                "evaluate.reference: required, as the data set brings no ground truth of its own"
            )
        colmap.check_model(folder)
        self.reference = folder

    def find_fingerprint(self) -> str | None:
        """Fingerprint over settings, the reference's content, and the model."""
        before = self.map.fingerprint()
        if before is None:
            return None
        return fingerprint("metrics", self.config.identity(), tree_hash(self.reference), before)

    def make(self) -> None:
        """Write metrics.json."""
        evaluate_output(self.workspace.root, self.reference, align=self.config.align)

    def figures(self) -> dict[str, Any]:
        """The pose errors."""
        figures = dict(read_metrics(self.workspace)["poses"])
        figures |= {f"auc_{k}deg_percent": v for k, v in figures.pop("auc_percent").items()}
        return {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in figures.items()}
