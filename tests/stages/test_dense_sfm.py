"""Dense matching instead of keypoints: a map and poses from the shipped pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest

import reconstruct
from reconstruct.errors import ConfigError

PIPELINE = Path(__file__).parents[2] / "pipelines" / "aachen_dense.yaml"


@pytest.mark.slow
def test_the_town_is_mapped_and_day_queries_are_found(town: Path, tmp_path: Path) -> None:
    settings = {
        "dataset.root": str(town),
        "evaluate.reference": str(town / "ground_truth.txt"),
        "extract.compact": {"encoding": "float16"},
        "map.threads": 1,
    }
    run = reconstruct.run(PIPELINE, output=tmp_path / "out", overrides=settings, verbosity=-1)
    assert run.model is not None
    assert run.model.num_reg_images() == 8
    assert run.model.compute_mean_track_length() > 2.5  # the grid joins pairs into tracks
    day = run.metrics["queries"]["day"]
    assert day["localized"] == 2
    assert day["position_median"] < 0.25


def test_dense_matching_needs_a_grid(town: Path, tmp_path: Path) -> None:
    settings = {"dataset.root": str(town), "extract.local": {"name": "sift"}}
    with pytest.raises(ConfigError, match=r"match\.method: dense needs local: \{name: grid\}"):
        reconstruct.run(PIPELINE, output=tmp_path / "out", overrides=settings, verbosity=-1)
    ratio = {"dataset.root": str(town), "match.ratio": 0.8}
    with pytest.raises(ConfigError, match="`ratio` goes with `method: mutual_nn`"):
        reconstruct.run(PIPELINE, output=tmp_path / "out", overrides=ratio, verbosity=-1)
