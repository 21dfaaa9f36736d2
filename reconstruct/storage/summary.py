"""summary.json: figures and seconds of each stage, of the run that made what is there.

    {"skipped": {"photo.jpg": "why"},
     "stages": {"extract": {"finished": "2026-01-31T12:00:00+00:00", "seconds": 12.5,
                            "figures": {"images": 11, ...}}}}

Written for the report and for people; no stage reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reconstruct.workspace import atomic_path


def read_summary(path: Path) -> dict[str, dict[str, Any]]:
    """Stage -> finished, seconds, figures; empty if there is no such file, or none readable."""
    try:
        stages = json.loads(path.read_text(encoding="utf-8"))["stages"]
        return {str(name): dict(entry) for name, entry in stages.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def stage_entry(seconds: float, figures: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a stage that has just made something."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"finished": now, "seconds": round(seconds, 2), "figures": dict(figures)}


def write_summary(
    path: Path, stages: Mapping[str, Mapping[str, Any]], skipped: Mapping[str, str]
) -> None:
    """Write the file, atomically."""
    content = {"skipped": dict(skipped), "stages": {k: dict(v) for k, v in stages.items()}}
    text = json.dumps(content, indent=1, ensure_ascii=False, default=str)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
