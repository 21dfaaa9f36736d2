"""A LightGlue for any features: what is learned from, the loss, and a run from file to weights."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file

from reconstruct.datasets.synthetic import SyntheticDataset
from reconstruct.features import load_extractor
from reconstruct.images import read_image
from reconstruct.matching import create
from reconstruct.matching.lightglue import LightGlueConfig, make_network
from reconstruct.matching.mutual_nn import MutualNNConfig
from reconstruct.training import loop, matcher, train
from reconstruct.training.crop_features import Side
from reconstruct.training.data.layout import LAYOUTS
from reconstruct.training.matcher import (
    Batch,
    draw_keypoints,
    layer_loss,
    matches_of,
    start_as_nearest,
    unit,
)
from reconstruct.training.mates import ALONE, UNKNOWN, mates

LAYOUT = LAYOUTS["test_time"]
CROP = 64
CELLS = LAYOUT.cells(CROP)


def moved_right(columns: int) -> Any:
    """Cells of two crops, the second of which shows all farther right."""
    number = np.arange(CELLS * CELLS).reshape(CELLS, CELLS)
    first, second = number[:, : CELLS - columns], number[:, columns:]
    return np.column_stack([first.ravel(), second.ravel()]).astype(np.int32)


@pytest.mark.parametrize("complete", [True, False])
def test_mates_by_hand(complete: bool) -> None:
    # All is 8 px farther right in the second crop: what lies in the last 8 px of the first is not
    # in it, nor what lies in the first 8 px of the second in the first.
    first = np.array([[9.0, 10.0], [30.0, 30.0], [20.0, 50.0], [40.0, 8.0], [55.0, 30.0]])
    second = np.array([[18.0, 11.0], [5.0, 30.0], [30.0, 55.0], [60.0, 40.0]])
    a, b = mates(
        LAYOUT, CROP, moved_right(2), first, second, near_px=3.0, far_px=7.0, complete=complete
    )
    elsewhere = ALONE if complete else UNKNOWN
    assert a.tolist() == [0, ALONE, UNKNOWN, ALONE, elsewhere]
    assert b.tolist() == [0, elsewhere, UNKNOWN, ALONE]


def test_no_keypoints_have_no_mates() -> None:
    nothing, one = np.zeros((0, 2)), np.array([[20.0, 20.0]])
    options: Any = {"near_px": 3.0, "far_px": 7.0, "complete": True}
    a, b = mates(LAYOUT, CROP, moved_right(0), nothing, one, **options)
    assert (a.tolist(), b.tolist()) == ([], [ALONE])
    a, b = mates(LAYOUT, CROP, moved_right(0), one, nothing, **options)
    assert (a.tolist(), b.tolist()) == ([ALONE], [])


def test_drawn_keypoints_keep_their_matches() -> None:
    rng = np.random.default_rng(0)
    partner = np.array([3, ALONE, 0, UNKNOWN, 5, 1])
    back = np.full(7, ALONE)
    back[partner[partner >= 0]] = np.flatnonzero(partner >= 0)
    empty = np.zeros((0, 0))
    pair = (Side(empty, empty, partner), Side(empty, empty, back))
    chosen = draw_keypoints(pair, 4, rng)
    assert [len(set(numbers)) for numbers in chosen] == [4, 4]
    first, second = matches_of(pair, chosen)
    wanted = [n for n in chosen[0] if partner[n] >= 0]
    assert chosen[0][first].tolist() == wanted
    assert chosen[1][second].tolist() == partner[wanted].tolist()


def test_the_loss_by_hand() -> None:
    similarity = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])
    first, second = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.5, 3.0]])
    nothing = torch.zeros(1, 2, 0)
    alone = torch.tensor([[False, True]]), torch.tensor([[False, False]])
    matched = [(torch.tensor([0]), torch.tensor([0]))]
    batch = Batch((nothing, nothing), (nothing, nothing), matched, alone)
    softmax = math.e**2 / (math.e**2 + 1)  # of its row, and of its column
    logistic = [1 / (1 + math.exp(-z)) for z in (1.0, 0.5, -1.0)]
    expected = -math.log(softmax**2 * logistic[0] * logistic[1]) - math.log(1 - logistic[2]) / 2
    assert layer_loss(similarity, first, second, batch).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("width", [32, 64])
def test_it_starts_as_nearest_neighbours(width: int) -> None:
    pytest.importorskip("kornia")
    rng = np.random.default_rng(0)
    rows = unit(rng.normal(size=(200, 64)) * np.linspace(2.0, 0.1, 64))
    torch.manual_seed(0)
    network = make_network(input_dim=64, descriptor_dim=width, num_heads=4, n_layers=2)
    start_as_nearest(network, rows)
    other = unit(rows + 0.02 * rng.normal(size=rows.shape))
    positions = torch.from_numpy(rng.uniform(0, 640, (2, 1, 200, 2)).astype(np.float32))
    image = {"image_size": torch.tensor([[640, 640]])}
    with torch.inference_mode():
        found = network.eval()(
            {
                f"image{i}": {**image, "keypoints": p, "descriptors": torch.from_numpy(d)[None]}
                for i, (p, d) in enumerate(zip(positions, (rows, other), strict=True))
            }
        )
    matches = found["log_assignment"][0, :-1, :-1].argmax(1)
    assert (matches == torch.arange(200)).float().mean() > 0.95


@pytest.fixture
def training(tmp_path: Path, square: SyntheticDataset) -> Path:
    """A file that trains a matcher of SIFT on the photos of the small square."""
    pytest.importorskip("kornia")
    data = {
        "name": "small",
        "dataset": {"format": "homographies", "images": str(square.images), "variants": 2},
        "validation": {"groups": 2, "every": 4},
        "train_matcher": {
            "local": {"name": "sift"},
            "crop_px": 160,
            "groups": 16,
            "pairs": 2,
            "width": 16,
            "layers": 2,
            "epochs": 1,
        },
    }
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


class Killed(Exception):
    """Stands in for a power cut."""


def test_from_the_file_to_matches_and_after_a_kill_the_same(
    training: Path,
    tmp_path: Path,
    square: SyntheticDataset,
    command: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extra = ("--device", "cpu")
    outcome = command("run", training, "--output", tmp_path / "whole", *extra)
    assert outcome.status == 0
    best = tmp_path / "whole" / "best.safetensors"
    assert f"--set match.method=lightglue --set match.weights={best}" in outcome.out

    def fails(*arguments: Any) -> Any:
        if arguments[-1] == 6:  # step: the checkpoint before it is of step 4
            raise Killed
        return loop.take_step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train, "take_step", fails)
        with pytest.raises(Killed):
            command("run", training, "--output", tmp_path / "cut", *extra, "-q")
    assert "goes on from step 4" in command("plan", training, "--output", tmp_path / "cut").out
    assert command("run", training, "--output", tmp_path / "cut", *extra, "-q").status == 0
    for name in ("last.safetensors", "best.safetensors"):
        whole, cut = (load_file(tmp_path / run / name) for run in ("whole", "cut"))
        assert whole.keys() == cut.keys()
        assert all(whole[k].tobytes() == cut[k].tobytes() for k in whole)
    origin = json.loads(best.with_suffix(".json").read_text(encoding="utf-8"))
    assert origin["config"]["train_matcher"]["local"]["name"] == "sift"

    photos = [read_image(square.images / name) for name in square.names[:2]]
    features = [load_extractor("sift", max_keypoints=300)(photo) for photo in photos]
    nearest, glue = (
        create(config, "cpu")
        for config in (
            MutualNNConfig(method="mutual_nn"),
            LightGlueConfig(method="lightglue", weights=str(best), threshold=0.0),
        )
    )
    pairs = [
        {tuple(row) for row in m.match(*[m.prepare(f) for f in features]).indices.tolist()}
        for m in (nearest, glue)
    ]
    assert len(pairs[0] & pairs[1]) > 0.5 * len(pairs[0])


def test_what_a_matcher_is_not_trained_for(training: Path, command: Any) -> None:
    for local, message in (
        ("{name: together}", "one kind of features"),
        ("{name: precomputed, method: x}", "name an extractor"),
    ):
        outcome = command("run", training, "--set", f"train_matcher.local={local}")
        assert outcome.status == 2
        assert message in outcome.err
    wide = ("--set", "train_matcher.width=256", "--output", training.parent / "wide", "-q")
    outcome = command("run", training, *wide)
    assert outcome.status == 2
    assert not (training.parent / "wide" / "crops").exists()  # told before the crops are made
    assert "train_matcher.width: 256 is more than the descriptors' 128" in outcome.err
    outcome = command("run", training, "--set", "train_matcher.heads=3")
    assert outcome.status == 2
    assert "expected a multiple of 2 x heads (6)" in outcome.err


def test_too_little_to_learn_from_or_to_validate_with_is_told(
    training: Path, tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ("--set", "train_matcher.local.max_keypoints=4", "--set", "train_matcher.groups=2")
    outcome = command("run", training, "--output", tmp_path / "few", "-q", *few)
    assert outcome.status == 1
    assert "keypoints in 2 groups of crops are too few" in outcome.err
    monkeypatch.setattr(matcher, "usable", lambda pairs: [])
    outcome = command("run", training, "--output", tmp_path / "none", "-q")
    assert outcome.status == 1
    assert "validation: no match in 2 groups of crops" in outcome.err


def test_without_the_library(
    training: Path, tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    outcome = command("run", training, "--output", tmp_path / "out", "-q")
    assert outcome.status == 2
    assert "pip install 'reconstruct[kornia]'" in outcome.err
    assert not (tmp_path / "out" / "crops").exists()
