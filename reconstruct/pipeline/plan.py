"""What would run, stage by stage, and why."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reconstruct.pipeline.config import load_config, with_images
from reconstruct.pipeline.context import open_context
from reconstruct.pipeline.order import build_stages
from reconstruct.progress import Reporter
from reconstruct.stages import Plan
from reconstruct.stages.whole import WholeStage


def plan(
    pipeline: Path | str,
    images: Path | str | None = None,
    output: Path | str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> list[tuple[str, Plan]]:
    """What `run` would do, stage by stage; changes nothing but the rendered demo data.

    Args:
        pipeline: As in `reconstruct.run`.
        images: As in `reconstruct.run`.
        output: As in `reconstruct.run`.
        overrides: As in `reconstruct.run`.

    Returns:
        Name and plan of each stage, in their order.

    Raises:
        UsageError: Wrong settings, or a missing folder.
    """
    config = load_config(pipeline, with_images(images, overrides))
    context = open_context(config, output, "cpu", Reporter(-1))
    plans: list[tuple[str, Plan]] = []
    for stage in build_stages(config, context):
        planned = stage.plan()
        waits = next((name for name, plan in plans if plan.state == "waiting"), None)
        pending = next((name for name, plan in plans if plan.state != "done"), None)
        if planned.state == "done" and pending is not None:
            planned = Plan("waiting", f"done again if {pending} brings anything new")
        elif waits is not None and isinstance(stage, WholeStage):
            planned = Plan("waiting", f"follows what {waits} brings")
        plans.append((stage.name, planned))
    return plans
