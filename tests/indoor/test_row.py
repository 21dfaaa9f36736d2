"""What a row of the table tells of itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reconstruct.errors import ArtifactError
from reconstruct.indoor.row import SECONDS, read_seconds


def test_seconds_of_matching(tmp_path: Path) -> None:
    match: Any = SimpleNamespace(context=SimpleNamespace(workspace=SimpleNamespace(root=tmp_path)))
    assert read_seconds(match) == 0.0
    (tmp_path / SECONDS).write_text("0.25\n", encoding="utf-8")
    assert read_seconds(match) == 0.25
    (tmp_path / SECONDS).write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"seconds_a_pair\.txt: is not a number of seconds"):
        read_seconds(match)
