"""What each method made of the photos, and how well their maps agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from reconstruct import colmap
from reconstruct.comparison.agreement import Agreement, agreement
from reconstruct.errors import EstimationError
from reconstruct.evaluation.poses import PoseMetrics, Poses, pose_metrics
from reconstruct.stages.evaluate import aligned
from reconstruct.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodOutcome:
    """One method's run.

    Attributes:
        label: Its name in the comparison.
        output: Its output folder.
        figures: Stage -> name -> value, as the run told them; empty where it failed.
        seconds: Stage -> seconds, in the run that made what is there.
        skipped: Photo -> why it was left out.
        metrics: Errors of the poses, where a reference is known and the map can be aligned with it.
        error: Why there is no map, or None.
    """

    label: str
    output: Path
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    metrics: PoseMetrics | None = None
    error: str | None = None

    @property
    def map(self) -> Mapping[str, Any]:
        """Figures of the mapped model; empty where there is none."""
        return self.figures.get("map", {})

    def as_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "output": str(self.output),
            "error": self.error,
            "figures": {stage: dict(values) for stage, values in self.figures.items()},
            "seconds": dict(self.seconds),
            "skipped": dict(self.skipped),
            "poses": self.metrics.as_dict() if self.metrics else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Methods over the same photos.

    Attributes:
        output: The folder that holds compare.json, compare.html and each method's own folder.
        methods: In the order in which they were asked for.
        settings: Label -> dotted key -> value in which the method differs from the pipeline file.
        agreements: Labels of two methods with a map -> how far their poses agree; None where the
            photos that both mapped fix no alignment.
    """

    output: Path
    methods: tuple[MethodOutcome, ...]
    settings: Mapping[str, Mapping[str, Any]]
    agreements: Mapping[tuple[str, str], Agreement | None]

    def as_dict(self) -> dict[str, Any]:
        """What compare.json holds."""
        methods = {
            m.label: {"settings": dict(self.settings[m.label]), **m.as_dict()} for m in self.methods
        }
        pairs = [
            {"methods": list(pair), "aligned": bool(found), **(asdict(found) if found else {})}
            for pair, found in self.agreements.items()
        ]
        return {"methods": methods, "agreement": pairs}


def pose_errors(output: Path, reference: Path | None, *, align: bool) -> PoseMetrics | None:
    """Errors of the largest model in a run's folder; None without reference, without a model, or
    where the two cannot be aligned."""
    estimated = mapped_poses(output)
    if reference is None or not estimated:
        return None
    truth = colmap.model_poses(colmap.read_model(reference))
    try:
        return pose_metrics(aligned(estimated, truth) if align else estimated, truth)
    except EstimationError:
        return None


def mapped_poses(output: Path) -> Poses:
    """Image -> cam_from_world in the largest model of a run's folder; empty without one."""
    models = Workspace(output).models()
    return colmap.model_poses(colmap.read_model(models[0])) if models else {}


def agreements(methods: Sequence[MethodOutcome]) -> dict[tuple[str, str], Agreement | None]:
    """How far the maps of every two methods agree; methods that made no map are left out."""
    poses = {m.label: mapped_poses(m.output) for m in methods if m.error is None}
    return {(a, b): agreement(poses[a], poses[b]) for a, b in combinations(poses, 2)}
