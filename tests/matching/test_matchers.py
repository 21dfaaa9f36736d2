"""What every registered matcher promises, and the section of its settings."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_lightglue import nearest_neighbour_weights

from reconstruct.config import Section, validate
from reconstruct.errors import ConfigError, UnknownNameError
from reconstruct.fingerprints import fingerprint
from reconstruct.matching import MATCHERS, Matcher, config_class, create
from reconstruct.matching.config import MatchConfig, default_match
from reconstruct.matching.many import match_pairs
from reconstruct.storage.features import FIELDS, FeatureStore
from reconstruct.types import LocalFeatures, Matches

SETTINGS: dict[str, list[dict[str, Any]]] = {
    "dense": [{}, {"coarse": 2, "margin": 1, "min_score": 0.3}],
    "lightglue": [{"weights": "made up"}],
    "mutual_nn": [{}, {"ratio": 0.9, "min_score": 0.3}, {"filter": {}}],
}
CASES = [{"method": method, **given} for method in SETTINGS for given in SETTINGS[method]]


class Given(Section):
    """A file with a section ``match``."""

    match: MatchConfig = default_match()


def section(**given: Any) -> Any:
    return validate(Given, {"match": given}, "file.yaml").match


def grid_features(rows: int, columns: int, seed: int = 0, dim: int = 16) -> LocalFeatures:
    """Descriptors on a grid that change smoothly: any matcher can make something of them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :columns]
    waves = np.random.default_rng(9).normal(size=(dim, 3)) * [0.8, 0.8, 3]
    values = np.cos(y[..., None] * waves[:, 0] + x[..., None] * waves[:, 1] + waves[:, 2])
    values = (values + rng.normal(scale=0.2, size=values.shape)).reshape(-1, dim)
    count = rows * columns
    return LocalFeatures(
        keypoints=np.stack([x.ravel() * 4 + 2, y.ravel() * 4 + 2], 1).astype(np.float32),
        scales=np.ones(count, np.float32),
        scores=rng.random(count).astype(np.float32),
        descriptors=(values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32),
        image_size=(columns * 4, rows * 4),
    )


@pytest.fixture(params=CASES, ids=str)
def matcher(request: pytest.FixtureRequest, tmp_path: Path) -> Matcher:
    given = dict(request.param)
    if "weights" in given:
        pytest.importorskip("kornia")
        given["weights"] = str(nearest_neighbour_weights(tmp_path / "made_up.pth", dim=16))
    return create(section(**given), "cpu")


def matched(matcher: Matcher, first: LocalFeatures, second: LocalFeatures) -> Matches:
    return matcher.match(matcher.prepare(first), matcher.prepare(second))


def test_every_registered_matcher_is_tested_here() -> None:
    assert sorted(SETTINGS) == sorted(MATCHERS)
    with pytest.raises(UnknownNameError, match="valid: dense, lightglue, mutual_nn"):
        config_class("nothing")


def test_matches_of_two_images(matcher: Matcher) -> None:
    first, second = grid_features(12, 16, 1), grid_features(8, 20, 2)
    found = matched(matcher, first, second)
    assert len(found) > 10
    assert found.indices.dtype == np.uint32
    assert found.scores.dtype == np.float32
    assert found.indices.shape == (len(found), 2)
    assert found.scores.shape == (len(found),)
    assert (np.diff(found.indices[:, 0].astype(int)) > 0).all(), "sorted, no keypoint twice"
    assert len(np.unique(found.indices[:, 1])) == len(found)
    if matcher.identity()["method"] != "lightglue":  # whose scores are probabilities
        i, j = found.indices.T
        cosines = (first.descriptors[i] * second.descriptors[j]).sum(axis=1)
        np.testing.assert_allclose(found.scores, cosines, atol=1e-5)
    again = matched(matcher, first, second)
    np.testing.assert_array_equal(found.indices, again.indices)


def test_an_image_matches_itself(matcher: Matcher) -> None:
    image = grid_features(12, 16)
    found = matched(matcher, image, image)
    assert len(found) > 100
    np.testing.assert_array_equal(found.indices[:, 0], found.indices[:, 1])


def test_images_without_keypoints(matcher: Matcher) -> None:
    none, image = LocalFeatures.empty((64, 48), 16), grid_features(12, 16)
    for first, second in ((none, image), (image, none), (none, none)):
        found = matched(matcher, first, second)
        assert found.indices.shape == (0, 2)
        assert found.scores.shape == (0,)


def test_only_what_it_says_is_read(matcher: Matcher, tmp_path: Any) -> None:
    images = [grid_features(12, 16, seed) for seed in (1, 2)]
    store = FeatureStore(tmp_path)
    store.write([FeatureStore.record(name, "", f) for name, f in zip("ab", images, strict=True)])
    partial = [store.load(name, matcher.reads) for name in "ab"]
    expected, found = matched(matcher, *images), matched(matcher, *partial)
    np.testing.assert_array_equal(found.indices, expected.indices)
    for name in set(FIELDS) - set(matcher.reads):
        assert len(getattr(partial[0], name)) == 0
    assert partial[0].image_size == images[0].image_size
    assert len(store.load("a")) == len(store.load("a").scores) == 12 * 16


def test_compact_descriptors(matcher: Matcher) -> None:
    first, second = grid_features(12, 16, 1), grid_features(12, 16, 2)
    halves = [replace(f, descriptors=f.descriptors.astype(np.float16)) for f in (first, second)]
    expected, found = matched(matcher, first, second), matched(matcher, *halves)
    same = {tuple(row) for row in expected.indices} & {tuple(row) for row in found.indices}
    assert len(same) > 0.95 * len(expected)


def test_prepared_images_know_their_size_and_identity_is_json(matcher: Matcher) -> None:
    image = grid_features(12, 16)
    assert matcher.prepare(image).nbytes >= image.descriptors.nbytes
    assert json.loads(json.dumps(matcher.identity())) == matcher.identity()


def test_many_pairs_side_by_side_are_those_one_by_one(matcher: Matcher) -> None:
    images = {name: grid_features(8, 12, seed) for seed, name in enumerate("abcdef")}
    loaded: Counter[str] = Counter()

    def load(name: str) -> LocalFeatures:
        loaded[name] += 1
        return images[name]

    pairs = list(combinations("abcdef", 2))
    found = dict(match_pairs(matcher, pairs, load))
    assert list(found) == pairs
    assert loaded == Counter("abcdef"), "each image is prepared once"
    for (first, second), matches in found.items():
        expected = matched(matcher, images[first], images[second])
        np.testing.assert_array_equal(matches.indices, expected.indices)
        np.testing.assert_array_equal(matches.scores, expected.scores)
    assert list(match_pairs(matcher, [], load)) == []


def test_matches_with_the_images_swapped() -> None:
    indices = np.array([[0, 7], [2, 1], [5, 3]], np.uint32)
    found = Matches(indices=indices, scores=np.array([0.5, 0.7, 0.9], np.float32)).swapped()
    assert found.indices.tolist() == [[1, 2], [3, 5], [7, 0]]
    np.testing.assert_allclose(found.scores, [0.7, 0.9, 0.5])
    assert len(Matches.empty().swapped()) == 0


def test_a_section_may_leave_the_method_out_and_hold_idle_defaults() -> None:
    assert section() == default_match() == Given().match == section(method="mutual_nn")
    assert section(ratio=0.8).ratio == 0.8
    assert section(method="mutual_nn", coarse=4, margin=2) == default_match()
    assert section(method="dense", ratio=None).coarse == 4
    for wrong, message in (
        ({"coarse": 8}, "match: `coarse` goes with `method: dense`, not with mutual_nn"),
        (
            {"method": "dense", "ratio": 0.8},
            "match: `ratio` goes with `method: mutual_nn`, not with dense",
        ),
        ({"coarsest": 8}, "match.coarsest: unknown key; valid: cache_mb, candidates, filter, "),
        (
            {"method": "nothing"},
            "match.method: unknown name 'nothing'; valid: dense, lightglue, mutual_nn",
        ),
        ({"method": ["dense"]}, "match.method: unknown name"),
        ({"ratio": 2.0}, "match.ratio: expected less than 1"),
    ):
        with pytest.raises(ConfigError, match=f"file.yaml: {message}"):
            section(**wrong)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "ef739fff4e87cccd"),
        ({"min_score": 0.5}, "13fe4a2ec7704014"),
        ({"method": "dense"}, "562fc0658d13256c"),
        ({"method": "dense", "coarse": 8, "margin": 1, "min_score": 0.2}, "c5c4b16d8e694709"),
    ],
)
def test_matches_of_old_output_folders_stay_valid(given: dict[str, Any], expected: str) -> None:
    """Fingerprints as they were when all matchers shared one section."""
    identity = create(section(**given), "cpu").identity()
    value = fingerprint("matches", identity, ["a.jpg", "1"], ["b.jpg", "2"])
    assert value.startswith(expected)


def test_matches_by_the_ratio_test_of_one_direction_do_not() -> None:
    identity = section(ratio=0.8).identity()
    value = fingerprint("matches", identity, ["a.jpg", "1"], ["b.jpg", "2"])
    assert not value.startswith("98aa5a3e35daf047")
    assert section(ratio=0.8, cache_mb=1).identity() == identity


def test_a_filter_leaves_matches_that_move_along_with_those_around_them() -> None:
    image = grid_features(12, 16)
    moved = replace(image, keypoints=image.keypoints * 0.5 + 100)
    moved.keypoints[::12] = moved.keypoints[::12][::-1].copy()
    plain = matched(create(section(method="mutual_nn"), "cpu"), image, moved)
    found = matched(create(section(method="mutual_nn", filter={}), "cpu"), image, moved)
    assert (len(plain), len(found)) == (192, 176)
    assert not set(found.indices[:, 0].tolist()) & set(range(0, 192, 12))


def test_with_candidates_the_filter_finds_what_is_not_the_most_similar() -> None:
    image = grid_features(12, 16)
    own = np.random.default_rng(1).normal(size=(192, 64)).astype(np.float32)
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    seen = own.copy()
    misled = np.arange(0, 192, 12)
    seen[misled] = 0.68 * own[misled] + 0.74 * own[misled[::-1]]  # a little nearer to another
    moved = replace(image, keypoints=image.keypoints * 0.5 + 100, descriptors=seen)
    image = replace(image, descriptors=own)
    found = [
        matched(create(section(method="mutual_nn", filter={}, candidates=k), "cpu"), image, moved)
        for k in (1, 2)
    ]
    assert not set(found[0].indices[:, 0].tolist()) & set(misled.tolist())
    assert found[1].indices.tolist() == [[i, i] for i in range(192)]


def test_candidates_need_a_filter_that_chooses() -> None:
    for settings in ({}, {"filter": {}, "ratio": 0.8}):
        with pytest.raises(ConfigError, match="candidates"):
            section(candidates=2, **settings)
    assert "candidates" not in section(filter={}).identity()
