"""Limits in pixels follow the resolution: a photo with four times the pixels a side is the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import reconstruct
from reconstruct.datasets.synthetic import SyntheticDataset
from reconstruct.features import config_class, input_scale
from reconstruct.storage.geometries import GeometryStore
from reconstruct.storage.matches import key_pair
from reconstruct.types import ImagePair

SEEN = {
    "extract.local": {"name": "d2net", "max_edge": 320},
    "match": {"method": "mutual_nn"},
    "refine": {"max_edge": 320},
}
TIMES = 4

Run = Callable[..., reconstruct.Run]


@pytest.fixture
def run(chain: Path, tmp_path: Path) -> Run:
    def call(photos: Path, output: str, **overrides: object) -> reconstruct.Run:
        settings = {**SEEN, "map.robust_loss_px": 0.5, **overrides}
        return reconstruct.run(chain, photos, tmp_path / output, settings, verbosity=-1)

    return call


@pytest.fixture
def sizes(square: SyntheticDataset, tmp_path: Path) -> tuple[Path, Path]:
    """Four photos as they are, and with each pixel repeated, which shrinking takes back exactly."""
    folders = tmp_path / "small", tmp_path / "large"
    for folder, times in zip(folders, (1, TIMES), strict=True):
        folder.mkdir()
        for name in square.names[:4]:
            pixels = np.asarray(Image.open(square.images / name).convert("RGB"))
            large = pixels.repeat(times, axis=0).repeat(times, axis=1)
            Image.fromarray(large).save(folder / f"{Path(name).stem}.png")
    return folders


def inliers(folder: Path) -> dict[ImagePair, set[tuple[int, int]]]:
    store = GeometryStore(folder)
    pairs = [key_pair(key) for key in store.fingerprints()]
    return {pair: {(a, b) for a, b in store.inliers(pair).tolist()} for pair in pairs}


def test_large_photos_give_the_same_inliers_and_model(sizes: tuple[Path, Path], run: Run) -> None:
    small, large = run(sizes[0], "of_small"), run(sizes[1], "of_large")
    for stage in ("geometries", "refined_geometries"):
        found, expected = inliers(large.output / stage), inliers(small.output / stage)
        assert found.keys() == expected.keys()
        for pair, matches in expected.items():
            # Most are equal; where the search draws on, rounding leads it to another sample.
            assert len(found[pair] & matches) > 0.9 * len(found[pair] | matches), pair
    model, reference = large.summary.figures["map"], small.summary.figures["map"]
    assert model["registered_images"] == reference["registered_images"] == 4
    assert model["observations"] == pytest.approx(reference["observations"], rel=0.05)
    error_px = reference["mean_reprojection_error_px"]
    assert model["mean_reprojection_error_px"] == pytest.approx(TIMES * error_px, rel=0.1)


def test_limits_in_pixels_of_the_photo_do_not(sizes: tuple[Path, Path], run: Run) -> None:
    only = {"map": None, "refine": None, "verify.pixels": "photo"}
    means = [
        run(photos, photos.name + "_strict", **only).summary.figures["verify"]["mean_inliers"]
        for photos in sizes
    ]
    assert means[1] < 0.9 * means[0]


def test_pixels_of_the_photo_in_one_of_the_input() -> None:
    d2net, sift = (config_class(name) for name in ("d2net", "sift"))
    assert input_scale(d2net(max_edge=1024), (4096, 2732)) == 4
    assert input_scale(d2net(max_edge=1600), (6000, 4000)) == 3.75
    assert input_scale(d2net(max_edge=1600), (2000, 2000)) == pytest.approx(4000 / 2800)  # the sum
    assert input_scale(sift(max_edge=1024), (640, 480)) == 1, "none is enlarged"
    assert input_scale(sift(max_edge=None), (6000, 4000)) == 1
    assert input_scale(d2net(max_edge=1600, tiles=True), (6000, 4000)) == 1
