"""summary.json: figures, seconds and peak memory of each stage, of the run that made what is there.

    {"skipped": {"photo.jpg": "why"},
     "stages": {"extract": {"finished": "2026-01-31T12:00:00+00:00", "seconds": 12.5,
                            "memory_mb": 812, "figures": {"images": 11, ...},
                            "of": "fingerprint over what the stage has left"}}}

Of a stage whose run was killed before this was written, there is no time and no memory. Written for
the report and for people; no stage reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reconstruct.atomic import atomic_path
from reconstruct.files import read_json


def read_summary(path: Path) -> dict[str, dict[str, Any]]:
    """Stage -> finished, seconds, memory_mb, figures; empty if no such file can be read."""
    try:
        stages = read_json(path)["stages"]
        return {str(name): dict(entry) for name, entry in stages.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def stage_entry(
    seconds: float, figures: Mapping[str, Any], memory_mb: float | None = None
) -> dict[str, Any]:
    """What is kept of a stage that has just made something; no memory_mb where it is unknown."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry: dict[str, Any] = {"finished": now, "seconds": round(seconds, 2)}
    if memory_mb is not None:
        entry["memory_mb"] = round(memory_mb)
    return entry | {"figures": dict(figures)}


def is_of(entry: Mapping[str, Any] | None, fingerprint: str | None) -> bool:
    """Whether an entry tells of what the stage has left: not if a run that made something since was
    killed before it wrote its own. Entries of older releases do not say."""
    return entry is not None and entry.get("of", fingerprint) == fingerprint


def write_summary(
    path: Path, stages: Mapping[str, Mapping[str, Any]], skipped: Mapping[str, str]
) -> None:
    """Write the file, atomically."""
    content = {"skipped": dict(skipped), "stages": {k: dict(v) for k, v in stages.items()}}
    text = json.dumps(content, indent=1, ensure_ascii=False, default=str)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
