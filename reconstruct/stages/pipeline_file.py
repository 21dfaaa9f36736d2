"""What every kind of pipeline file begins with, whatever its sections are."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from reconstruct.cluster.settings import ClusterConfig
from reconstruct.config import NotIdentity, Section


class PipelineFile(Section):
    """The keys of a pipeline file that belong to no section."""

    name: Annotated[str, NotIdentity]
    """Names the run; the output folder is output/NAME where --output is not given."""
    output: Annotated[str | None, NotIdentity] = None
    """Output folder."""
    seed: int = Field(0, ge=0)
    """Seed of every random choice."""
    cluster: Annotated[ClusterConfig | None, NotIdentity] = None
    """Where the work is done; null: in this process."""
