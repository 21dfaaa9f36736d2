"""Photos that stage `turn` found to lie on their side: ``turns/found.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from reconstruct.atomic import atomic_path
from reconstruct.files import read_json


class FoundTurn(NamedTuple):
    """How a photo has to be turned, beyond what its EXIF data say.

    Args:
        features: Fingerprint of its features without that turn, for which alone it holds: of
            another photo, or by another extractor, it has to be found again.
        quarter_turns: Clockwise, 1 to 3.
    """

    features: str
    quarter_turns: int


def read_turns(path: Path) -> dict[str, FoundTurn]:
    """Photo -> its turn. A file that is not there, or cannot be read, holds none."""
    try:
        content = read_json(path)
        turns = {name: FoundTurn(str(value[0]), int(value[1])) for name, value in content.items()}
        return {name: turn for name, turn in turns.items() if turn.quarter_turns in (1, 2, 3)}
    except (AttributeError, LookupError, OSError, TypeError, ValueError):
        return {}


def write_turns(path: Path, turns: Mapping[str, FoundTurn]) -> None:
    """Replace the file."""
    with atomic_path(path) as temporary:
        text = json.dumps(dict(sorted(turns.items())), indent=1)
        temporary.write_text(text + "\n", encoding="utf-8")
