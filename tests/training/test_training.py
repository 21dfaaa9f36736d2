"""Training from the file to the weights: resume, fingerprints, what a user sees."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.numpy import load_file

from reconstruct.datasets.synthetic import SyntheticDataset
from reconstruct.features.weights import load_weights, read_weights
from reconstruct.pipeline.config import load_config
from reconstruct.training import loop, maps, train
from reconstruct.training.head import Head
from reconstruct.training.loading import fresh_examples
from reconstruct.training.maps import Example, GroupSource
from reconstruct.training.settings import TrainConfig, TrainingConfig, ValidationConfig

SMALL: dict[str, Any] = {
    "name": "small",
    "dataset": {"format": "homographies", "images": "photos", "variants": 2, "max_scale": 1.2},
    "validation": {"groups": 2, "every": 2},
    "train": {
        "crop_px": 64,
        "min_correspondences": 8,
        "groups": 3,
        "epochs": 2,
        "learning_rate": 1e-4,
    },
}


@pytest.fixture
def training(tmp_path: Path, square: SyntheticDataset) -> Path:
    """A training file for the photos of the small square."""
    path = tmp_path / "train.yaml"
    data = SMALL | {"dataset": SMALL["dataset"] | {"images": str(square.images)}}
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    return path


def rows(output: Path) -> list[dict[str, str]]:
    with open(output / "curves.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Killed(Exception):
    """Stands in for a power cut."""


@pytest.mark.parametrize("keep_maps", [True, False])
def test_a_killed_run_goes_on_as_if_it_had_not_been(
    keep_maps: bool, training: Path, tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = ("-q", "--device", "cpu", "--set", f"train.keep_maps={str(keep_maps).lower()}")
    assert command("run", training, "--output", tmp_path / "whole", *extra).status == 0

    def fails(*arguments: Any) -> Any:
        if arguments[-1] == 5:  # step: the checkpoint before it is of step 4
            raise Killed
        return loop.take_step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train, "take_step", fails)
        with pytest.raises(Killed):
            command("run", training, "--output", tmp_path / "cut", *extra)
    plan = command("plan", training, "--output", tmp_path / "cut", *extra[3:]).out
    assert "goes on from step 4" in plan
    assert "2 of 6" in plan
    assert command("run", training, "--output", tmp_path / "cut", *extra).status == 0
    for name in ("last.safetensors", "best.safetensors"):
        whole, cut = (load_file(tmp_path / run / name) for run in ("whole", "cut"))
        assert whole.keys() == cut.keys()
        assert all(whole[k].tobytes() == cut[k].tobytes() for k in whole)
    assert rows(tmp_path / "whole") == rows(tmp_path / "cut")
    assert [row["step"] for row in rows(tmp_path / "cut")] == ["1", "2", "3", "4", "5", "6"]


def test_a_kill_before_the_last_curves_loses_none(
    training: Path, tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(state: list[dict[str, float]]) -> str:
        if len(state) == 6:
            raise Killed
        return "not the last"

    extra = ("-q", "--device", "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(train, "draw", fails)
        with pytest.raises(Killed):
            command("run", training, "--output", tmp_path / "cut", *extra)
    assert command("run", training, "--output", tmp_path / "cut", *extra).status == 0
    assert "<svg" in (tmp_path / "cut" / "curves.svg").read_text(encoding="utf-8")


def test_maps_may_be_made_in_other_processes(
    training: Path, tmp_path: Path, command: Any, monkeypatch: pytest.MonkeyPatch, elsewhere: None
) -> None:
    monkeypatch.setattr(maps.Maps, "shard", (2, 2))
    extra = ("--only", "maps", "-q", "--device", "cpu")
    assert command("run", training, "--output", tmp_path / "elsewhere", *extra).status == 0
    monkeypatch.undo()
    monkeypatch.setattr(maps.Maps, "shard", (2, 2))
    assert command("run", training, "--output", tmp_path / "here", *extra).status == 0
    made = sorted((tmp_path / "here" / "maps").iterdir())
    assert len(made) == 3
    for path in made:
        assert path.read_bytes() == (tmp_path / "elsewhere" / "maps" / path.name).read_bytes()


def test_what_a_run_leaves(training: Path, tmp_path: Path, command: Any) -> None:
    output = tmp_path / "out"
    outcome = command("run", training, "--output", output, "--device", "cpu")
    assert outcome.status == 0
    assert "best validation loss" in outcome.out
    best = read_weights(output / "best.safetensors").tensors
    start = load_weights("vgg16").tensors
    changed = [name for name in start if best[name].tobytes() != start[name].tobytes()]
    assert changed == ["conv4_3.weight", "conv4_3.bias"]
    origin = json.loads((output / "best.json").read_text(encoding="utf-8"))
    assert origin["config"]["train"]["groups"] == 3
    assert {"commit", "data", "validation_loss", "step", "starts_from"} <= origin.keys()
    checked = [row["validation"] != "" for row in rows(output)]
    assert checked == [False, True, False, True, False, True]
    assert "done" in command("plan", training, "--output", output).out
    stale = command("plan", training, "--output", output, "--set", "train.margin=0.9").out
    assert "settings or inputs changed" in stale
    again = f"train.weights={output / 'best.safetensors'}"
    assert "0 of 5" in command("plan", training, "--output", output, "--set", again).out
    photos = command("plan", training, "--output", output, "--set", "train.crop_px=72").out
    assert "5 of 5" in photos


def test_the_schedule_by_hand() -> None:
    config = TrainConfig(learning_rate=1.0, groups=50, epochs=2, warmup=1)
    assert config.rate(0) == pytest.approx(0.5)
    assert config.rate(50) == pytest.approx(0.505)
    assert config.rate(100) == pytest.approx(0.01)
    step = TrainConfig(learning_rate=1.0, groups=100, schedule="step", warmup=0)
    assert (step.rate(69), step.rate(70)) == (1.0, 0.2)


@pytest.mark.parametrize("limit", [None, 1e-3])
def test_gradients_are_shortened_only_where_that_is_asked_for(limit: float | None) -> None:
    generator = torch.Generator().manual_seed(0)
    cells = torch.arange(144).repeat(2, 1).T
    example = Example(torch.randn((2, 512, 12, 12), generator=generator), [(0, 1, cells)])
    head = torch.nn.Conv2d(512, 512, 3, padding=1)
    start = [p.detach().clone() for p in head.parameters()]
    config = TrainConfig(learning_rate=1.0, warmup=0, schedule="constant", max_gradient_norm=limit)
    learner = Head(
        GroupSource(
            TrainingConfig.model_construct(train=config, validation=ValidationConfig()), "cpu"
        ),
        None,
    )
    row = loop.take_step(learner, head, torch.optim.SGD(head.parameters()), example, 0)
    moved = torch.stack([(p - s).norm() for p, s in zip(head.parameters(), start, strict=True)])
    assert row["gradient_norm"] > 1e-2
    assert moved.detach().norm().item() == pytest.approx(limit or row["gradient_norm"], rel=1e-2)


def test_every_epoch_has_all_kept_groups_or_new_ones() -> None:
    numbers = list(loop.steps(0, 2, 4, 0, fresh=False))
    assert sorted(numbers[:4]) == sorted(numbers[4:]) == [0, 1, 2, 3]
    assert list(loop.steps(0, 2, 4, 3, fresh=False)) == numbers[3:]
    assert list(loop.steps(0, 2, 4, 5, fresh=True)) == [5, 6, 7]


def test_a_training_file_is_told_by_its_section(training: Path, command: Any) -> None:
    assert load_config(training).name == "small"
    outcome = command("run", training, "--set", "train.layot=release")
    assert outcome.status == 2
    assert "train.layot: unknown key (did you mean 'layout'?)" in outcome.err
    missing = command("run", training, "--images", "/nowhere", "-q")
    assert missing.status == 2
    assert "/nowhere: no such folder" in missing.err


@pytest.mark.slow
def test_processes_draw_the_same_groups(training: Path) -> None:
    source = GroupSource(load_config(training), "cpu")
    alone = list(fresh_examples(source, [4, 2], workers=0))
    shared = list(fresh_examples(source, [4, 2], workers=1))
    for a, b in zip(alone, shared, strict=True):
        assert a.maps.numpy().tobytes() == b.maps.numpy().tobytes()
        assert [pair[:2] for pair in a.pairs] == [pair[:2] for pair in b.pairs]
