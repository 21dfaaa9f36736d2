"""Several extractors side by side: their keypoints, matched each within its kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fixtures import textured

from reconstruct.errors import ConfigError
from reconstruct.features import input_scale, load_extractor
from reconstruct.features.together import joined
from reconstruct.matching import create
from reconstruct.matching.mutual_nn import MutualNNConfig
from reconstruct.storage.features import FeatureStore
from reconstruct.types import LocalFeatures


def features(descriptors: list[list[float]]) -> LocalFeatures:
    count = len(descriptors)
    return LocalFeatures(
        keypoints=np.arange(2.0 * count, dtype=np.float32).reshape(-1, 2),
        scales=np.ones(count, np.float32),
        scores=np.ones(count, np.float32),
        descriptors=np.asarray(descriptors, np.float32),
        image_size=(9, 9),
    )


def test_blocks_by_hand() -> None:
    both = joined([features([[1, 0], [0, 1]]), features([[0.6, 0, 0.8]])])
    assert both.kinds is not None
    assert both.kinds.tolist() == [0, 0, 1]
    expected = [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0.6, 0, 0.8]]
    np.testing.assert_allclose(both.descriptors, expected)
    assert both.keypoints.tolist() == [[0, 1], [2, 3], [0, 1]]


def test_each_kind_matches_as_if_it_were_alone() -> None:
    names, images = ("d2net", "sift"), [textured(120, 160, seed) for seed in (1, 1)]
    images[1] = np.roll(images[1], 8, axis=1)
    matcher = create(MutualNNConfig(ratio=0.95), "cpu")

    def matches(name: str) -> tuple[list[LocalFeatures], np.ndarray]:
        settings = {} if name == "sift" else {"weights": "vgg16"}
        found = [load_extractor(name, device="cpu", **settings)(image) for image in images]
        return found, matcher.match(*(matcher.prepare(f) for f in found)).indices

    (first, second), together = matches("together")
    assert first.kinds is not None
    assert second.kinds is not None
    assert (np.diff(together[:, 0].astype(int)) > 0).all()
    for kind, name in enumerate(names):
        alone_features, alone = matches(name)
        rows = [np.flatnonzero(f.kinds == kind) for f in (first, second)]
        np.testing.assert_array_equal(first.keypoints[rows[0]], alone_features[0].keypoints)
        mine = together[first.kinds[together[:, 0]] == kind]
        np.testing.assert_array_equal(mine - [rows[0][0], rows[1][0]], alone)
        assert len(alone) > 10


def test_a_kind_that_one_image_lacks_matches_nothing() -> None:
    matcher = create(MutualNNConfig(), "cpu")
    one = joined([features([[1, 0]]), features([[1, 0]])])
    other = joined([features([[1, 0]]), LocalFeatures.empty((9, 9), 2)])
    prepared = [matcher.prepare(f) for f in (one, other)]
    assert matcher.match(*prepared).indices.tolist() == [[0, 0]]
    nothing = joined([LocalFeatures.empty((9, 9), 2)] * 2)
    assert len(matcher.match(prepared[0], matcher.prepare(nothing))) == 0


def test_descriptors_that_share_no_column_have_a_product_of_zero() -> None:
    matcher = create(MutualNNConfig(min_score=0.5), "cpu")
    one = joined([features([[1, 0, 0, 0, 0, 0]]), features([[1, 0]])])
    other = joined([features([[0, 0, 0, 0.6, 0, 0.8]]), features([[1, 0]])])
    found = matcher.match(matcher.prepare(one), matcher.prepare(other))
    assert found.indices.tolist() == [[1, 1]]


def test_kinds_are_stored_and_features_without_them_stay_as_they_are(tmp_path: Path) -> None:
    both, single = joined([features([[1, 0]]), features([[1, 0]])]), features([[1, 0]])
    store = FeatureStore(tmp_path)
    store.write([store.record("both", "x", both)])
    store.write([store.record("single", "x", single)])
    for fields in (("keypoints", "scales", "scores", "descriptors"), ("descriptors", "kinds")):
        kinds = store.load("both", fields).kinds
        assert kinds is not None
        assert kinds.tolist() == [0, 1]
        assert store.load("single", fields).kinds is None
    assert store.fields("single") == [
        "descriptors", "image_size", "keypoints", "scales", "scores",
    ]  # fmt: skip


def test_settings() -> None:
    both = load_extractor("together", max_edge=400).config
    assert [part.max_edge for part in both.parts] == [400, 400]
    assert input_scale(both, (800, 600)) == 2
    own = [{"name": "d2net", "max_edge": 100}, {"name": "sift"}]
    part, other = load_extractor("together", max_edge=400, parts=own).config.parts
    assert (part.max_edge, other.max_edge) == (100, 400)
    given = {"weights": "d2_tf", "multiscale": True, "max_keypoints": 7}
    d2net, sift = load_extractor("together", **given).config.parts
    assert (d2net.weights, d2net.multiscale, d2net.max_keypoints) == ("d2_tf", True, 7)
    assert sift.max_keypoints == 7
    tiled = load_extractor("together", tiles=True).config
    assert (tiled.parts[0].tiles, input_scale(tiled, (3200, 2400))) == (True, 2)  # SIFT's
    with pytest.raises(ConfigError, match="parts"):
        load_extractor("together", parts=[{"name": "together"}])
    with pytest.raises(ConfigError, match="parts"):
        load_extractor("together", parts=[])
