"""What a finished run left, for those who go on from Python."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from reconstruct import colmap
from reconstruct.config import SectionT, read_yaml, validate
from reconstruct.errors import UsageError
from reconstruct.stages import Summary
from reconstruct.stages.evaluate import read_metrics
from reconstruct.workspace import Workspace


@dataclass(frozen=True)
class Run:
    """What a finished run left.

    output: the folder. summary: what was skipped, and the figures of each stage.
    """

    output: Path
    summary: Summary

    @cached_property
    def model(self) -> colmap.Reconstruction | None:
        """The largest model (pycolmap.Reconstruction), or None if nothing was mapped."""
        path = Workspace(self.output).sparse
        return colmap.read_model(path) if path.is_dir() else None

    @property
    def metrics(self) -> dict[str, Any]:
        """What metrics.json holds."""
        return read_metrics(Workspace(self.output))


def read_settings(path: Path, model: type[SectionT]) -> SectionT:
    """The sections of a run's settings that ``model`` has, from the run's ``run.yaml``.

    Raises UsageError if the file holds none, ConfigError if they are not valid.
    """
    written = read_yaml(path).get("config")
    if not isinstance(written, dict):
        raise UsageError(f"{path}: does not hold the settings of a run; run the pipeline again")
    data = {name: written[name] for name in model.model_fields if written.get(name)}
    return validate(model, data, f"{path}: config")
