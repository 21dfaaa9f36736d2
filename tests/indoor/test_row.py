"""What a row of the table tells of itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reconstruct.errors import ArtifactError
from reconstruct.indoor.row import SECONDS, read_seconds, write_seconds


def test_seconds_of_matching(tmp_path: Path) -> None:
    match: Any = SimpleNamespace(
        context=SimpleNamespace(workspace=SimpleNamespace(root=tmp_path)),
        fingerprint_of_all=lambda: "f",
        seconds=3.0,
        made=12,
    )
    assert read_seconds(match) is None, "killed before they were written: not 0"
    write_seconds(match)
    assert read_seconds(match) == 0.25
    match.fingerprint_of_all = lambda: "g"
    assert read_seconds(match) is None, "of other matches"
    (tmp_path / SECONDS).write_text("0.5\n", encoding="utf-8")
    assert read_seconds(match) == 0.5
    (tmp_path / SECONDS).write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"seconds_a_pair\.txt: is not a number of seconds"):
        read_seconds(match)
