"""Photos that lie on their side without a tag: found, turned, and kept so by the next run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import reconstruct
from reconstruct.datasets.synthetic import SyntheticDataset
from reconstruct.errors import ConfigError
from reconstruct.orientation import upright
from reconstruct.stages.turn import largest_group
from reconstruct.storage.features import open_features

UPRIGHT = {"extract.local.upright": True}  # SIFT that is not invariant to rotation
SEARCH = {**UPRIGHT, "extract.orientation": "search"}

Run = Callable[..., reconstruct.Run]


@pytest.fixture
def run(chain: Path, tmp_path: Path) -> Run:
    def call(photos: Path, **overrides: object) -> reconstruct.Run:
        return reconstruct.run(chain, photos, tmp_path / "out", {**SEARCH, **overrides}, **quiet)

    quiet = {"verbosity": -1}
    return call


@pytest.fixture
def lying(square: SyntheticDataset, tmp_path: Path) -> Path:
    """Five photos of the square; two of them lie on different sides, without a tag."""
    folder = tmp_path / "lying"
    folder.mkdir()
    for number, name in enumerate(square.names[:5]):
        pixels = np.asarray(Image.open(square.images / name).convert("RGB"))
        pixels = upright(pixels, {1: 6, 3: 3}.get(number, 1))
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_photos_that_lie_on_their_side_are_found_and_turned(lying: Path, run: Run) -> None:
    blind = run(lying, **{"extract.orientation": "exif", "map": None})
    assert blind.summary.figures["verify"]["verified_pairs"] < 10
    found = run(lying)
    assert found.model is not None
    assert found.model.num_reg_images() == 5
    figures = found.summary.figures
    # Turned clockwise by a quarter, a photo takes three more to stand upright; upside down two.
    assert figures["turn"]["turned"] == ["1.png (270° clockwise)", "3.png (180° clockwise)"]
    assert figures["turn"]["without_a_match"] == 0
    assert figures["verify"]["verified_pairs"] == 10
    summary = json.loads((found.output / "summary.json").read_text())["stages"]
    assert summary["verify"]["figures"]["verified_pairs"] == 10
    features = open_features(found.output).load("1.png")
    with Image.open(lying / "1.png") as image:
        assert features.image_size == image.size, "keypoints are in the stored picture"


def test_turns_that_were_found_stay_found(lying: Path, run: Run, chain: Path) -> None:
    first = run(lying)
    again = run(lying)
    made = {stage: f for stage, f in again.summary.figures.items() if stage != "turn"}
    assert [made["extract"]["extracted_now"], made["match"]["matched_now"]] == [0, 0]
    assert again.summary.figures["turn"]["tried_now"] == 0
    assert again.summary.figures["turn"]["turned"] == first.summary.figures["turn"]["turned"]
    planned = reconstruct.plan(chain, lying, again.output, SEARCH)
    assert {plan.state for _, plan in planned} == {"done"}
    # As it is stored and by another extractor it is another photo, to be looked at anew.
    other = run(lying, **{"extract.local.max_keypoints": 300})
    assert other.summary.figures["turn"]["tried_now"] == 2
    assert other.summary.figures["verify"]["verified_pairs"] == 10
    stored = run(lying, **{"extract.orientation": "exif", "map": None})
    assert stored.summary.figures["verify"]["verified_pairs"] < 10


def test_a_photo_of_another_place_stays_as_it_is(lying: Path, run: Run) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    Image.fromarray(noise).save(lying / "noise.png")
    found = run(lying).summary.figures["turn"]
    assert found["turned"] == ["1.png (270° clockwise)", "3.png (180° clockwise)"]
    assert found["without_a_match"] == 1
    assert run(lying).summary.figures["turn"]["tried_now"] == 0


def test_features_from_files_cannot_be_turned(lying: Path, run: Run) -> None:
    with pytest.raises(ConfigError, match="read from files"):
        run(lying, **{"extract.local": {"name": "precomputed"}})


def test_the_largest_group() -> None:
    assert largest_group([], []) == set()
    assert largest_group(["a", "b"], []) == {"a"}
    pairs = [("a", "b"), ("c", "d"), ("d", "e")]
    assert largest_group(["a", "b", "c", "d", "e"], pairs) == {"c", "d", "e"}
