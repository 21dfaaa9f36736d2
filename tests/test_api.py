"""The steps from Python: their examples run, and they go on in each other's folders."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest

import reconstruct
from reconstruct import api
from reconstruct.errors import UsageError

EXAMPLES = [name for name in api.__all__ if ">>>" in (getattr(api, name).__doc__ or "")]


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name: str, photos: Path, tmp_path: Path) -> None:
    names = {"photos": photos, "output": str(tmp_path / "out")}
    globs = {**vars(api), **names}
    test = doctest.DocTestParser().get_doctest(getattr(api, name).__doc__, globs, name, None, 0)
    assert doctest.DocTestRunner().run(test).failed == 0


def test_a_pipeline_goes_on_where_the_steps_ended(
    photos: Path, chain: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    features = reconstruct.extract_features(photos, output, "sift")
    pairs = reconstruct.exhaustive_pairs(features.names)
    matches = reconstruct.match_features(features, pairs, output, ratio=0.9)
    geometries = reconstruct.verify_pairs(features, matches, output)
    database = reconstruct.build_database(features, geometries, output / "database.db")
    model = reconstruct.map_images(database, photos, output / "sparse", threads=1)
    assert model.num_reg_images() == 4
    # A pipeline file goes on in the same folder.
    figures = reconstruct.run(chain, photos, output, verbosity=-1).summary.figures
    assert figures["extract"]["extracted_now"] == figures["match"]["matched_now"] == 0
    assert figures["verify"]["verified_now"] == 0
    pair = matches.pairs[0]
    assert len(matches.scores(pair)) == len(matches[pair])
    np.testing.assert_array_equal(matches[pair[::-1]], matches[pair][:, ::-1])
    assert len(geometries[pair].inliers) <= len(matches[pair])


def test_a_pair_without_features_is_named(photos: Path, tmp_path: Path) -> None:
    features = reconstruct.extract_features(photos, tmp_path / "out", "sift")
    with pytest.raises(UsageError, match=r"'nowhere\.jpg' has no features"):
        reconstruct.match_features(features, [("nowhere.jpg", features.names[0])], tmp_path / "out")
