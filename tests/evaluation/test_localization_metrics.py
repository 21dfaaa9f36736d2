"""Shares of localized queries, and the file for the server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reconstruct.datasets.scene import look_at
from reconstruct.errors import ArtifactError, DataError
from reconstruct.evaluation.localization import (
    grouped_metrics,
    localization_metrics,
    metrics_table,
    query_errors,
)
from reconstruct.evaluation.submission import check_submission, write_submission

INF = float("inf")


def _pose(x: float, degrees: float) -> np.ndarray:
    """A camera at (x, 0, 0), turned about z."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return np.column_stack([rotation, -rotation @ [x, 0, 0]])


def test_errors_of_known_poses() -> None:
    truth = {"a": _pose(1, 0), "b": _pose(1, 30), "c": _pose(0, 0)}
    errors = query_errors({"a": _pose(1.3, 4), "b": _pose(1, 30), "x": _pose(0, 0)}, truth)
    np.testing.assert_allclose(errors["a"], (0.3, 4.0), atol=1e-9)
    np.testing.assert_allclose(errors["b"], (0, 0), atol=1e-9)
    assert errors["c"] == (INF, INF)
    assert "x" not in errors


def test_shares_and_medians() -> None:
    errors = [(0.1, 1.0), (0.25, 2.0), (0.1, 3.0), (4.0, 9.0), (INF, INF)]
    found = localization_metrics(errors)
    assert found.within_percent == {
        "0.25 m, 2 deg": 40.0,
        "0.5 m, 5 deg": 60.0,
        "5 m, 10 deg": 80.0,
    }
    assert (found.queries, found.localized) == (5, 4)
    assert (found.position_median, found.rotation_median_deg) == (0.25, 3.0)


def test_failures_can_be_the_median() -> None:
    found = localization_metrics([(0.1, 1.0), (INF, INF), (INF, INF)], [(1.0, 5.0)])
    assert found.within_percent == {"1 m, 5 deg": pytest.approx(100 / 3)}
    assert found.position_median is None
    assert localization_metrics([], [(1.0, 5.0)]).within_percent == {"1 m, 5 deg": 0.0}


def test_groups_and_their_table() -> None:
    errors = {"a": (0.1, 1.0), "b": (INF, INF), "c": (0.3, 1.0)}
    found = grouped_metrics(errors, {"a": "day", "b": "night", "c": "day"}, [(0.25, 2.0)])
    assert list(found) == ["all", "day", "night"]
    assert metrics_table(found) == [
        ["queries", "localized", "0.25 m, 2 deg", "median m", "median deg"],
        ["all", "2 of 3", "33.3 %", "0.3", "1"],
        ["day", "2 of 2", "50.0 %", "0.2", "1"],
        ["night", "0 of 1", "0.0 %", "failed", "failed"],
    ]
    assert list(grouped_metrics(errors, dict.fromkeys("abc", "q"), [(1.0, 1.0)])) == ["all"]


def test_submission_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "Aachen_eval_[x].txt"
    queries = ["query/night/a.jpg", "query/night/b.jpg"]
    write_submission(path, {"query/night/a.jpg": look_at((1, 2, 3), (0, 0, 1))})
    assert path.read_text().startswith("a.jpg ")
    assert check_submission(path, queries) == []  # b.jpg is left out, as it should be
    path.write_text("a.jpg 1 0 0 0 1 2 3\na.jpg 2 0 0 0 1 2 3\nc.jpg 1 0 0 0 1 2 3\nb.jpg 1 0\n")
    problems = check_submission(path, queries)
    assert len(problems) == 4
    for words, problem in zip(
        ("twice", "unit length", "no query", "line 4"), problems, strict=True
    ):
        assert words in problem
    path.write_text("")
    assert check_submission(path, queries) == []
    with pytest.raises(ArtifactError):
        check_submission(tmp_path / "nowhere.txt", queries)


def test_submission_needs_unique_basenames(tmp_path: Path) -> None:
    pose = _pose(0, 0)
    with pytest.raises(DataError, match=r"two localized queries are named a\.jpg"):
        write_submission(tmp_path / "s.txt", {"day/a.jpg": pose, "night/a.jpg": pose})
