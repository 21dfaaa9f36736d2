"""kornia's extractors with random weights, and what is said where something is missing."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from reconstruct.errors import UsageError, WeightsError
from reconstruct.features import load_extractor, published
from reconstruct.features.kornia import MIN_EDGE, KorniaConfig, build
from reconstruct.features.kornia_weights import FILES, PARTS
from reconstruct.fingerprints import file_hash

MODELS = ["hesaffnet_hardnet", "keynet_affnet_hardnet", "disk", "aliked-n16", "xfeat"]


def random_weights(model: str, folder: Path) -> str:
    """Path of a state dict with the weights that kornia initialises a model with."""
    path = folder / f"{model}.pth"
    torch.manual_seed(0)
    network = build(KorniaConfig.model_validate({"model": model, "weights": str(path)}))
    entries = network.state_dict()
    if model == "xfeat":  # else no pixel of a cell stands out, and none is a keypoint
        entries["net.keypoint_head.3.weight"] *= 300
    if model == "keynet_affnet_hardnet":  # else the last ReLU leaves nothing
        entries["detector.model.last_conv.0.weight"].abs_()
    torch.save(entries, path)
    return str(path)


def part_of(entries: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The entries of a network within a model, as its authors' file has them, which is older than
    the counters of batches."""
    return {
        key.removeprefix(f"{place}."): value
        for key, value in entries.items()
        if key.startswith(f"{place}.") and not key.endswith("num_batches_tracked")
    }


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kornia.feature", None)
    with pytest.raises(UsageError, match=r"reconstruct\[kornia\]"):
        load_extractor("kornia")(np.zeros((32, 32, 3), np.uint8))


@pytest.mark.parametrize("model", MODELS)
def test_offline(model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("kornia")
    monkeypatch.setenv("RECONSTRUCT_CACHE", str(tmp_path))
    without_addresses(monkeypatch)
    with pytest.raises(WeightsError, match="not in the cache") as told:
        load_extractor("kornia", model=model)(np.zeros((32, 32, 3), np.uint8))
    assert str(tmp_path) in str(told.value)
    assert "give a path as `weights`" in str(told.value)


def without_addresses(monkeypatch: pytest.MonkeyPatch, **pinned: str) -> None:
    """Nothing can be downloaded; further arguments replace the hashes of files."""
    for name, file in published.FILES.items():
        changed = {"urls": (), "known": pinned.get(name, file.known)}
        monkeypatch.setitem(published.FILES, name, dataclasses.replace(file, **changed))


@pytest.mark.parametrize("model", MODELS)
def test_what_the_authors_publish_is_loaded_if_it_is_what_is_known(
    model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The authors' files, each with made-up weights, in the cache."""
    pytest.importorskip("kornia")
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setenv("RECONSTRUCT_CACHE", str(cache))
    path = random_weights(model, tmp_path)
    entries = torch.load(path, weights_only=True)
    if model in FILES:
        torch.save(entries, cache / FILES[model])
    else:
        for place, names in PARTS.items():
            torch.save({"state_dict": part_of(entries, place)}, cache / names[-1])
    hashes = {file.name: file_hash(file) for file in cache.iterdir()}
    without_addresses(monkeypatch, **hashes)
    ours, found = (
        load_extractor("kornia", model=model, weights=weights).identity()["weights"]
        for weights in (path, None)
    )
    assert found == ours
    without_addresses(monkeypatch, **dict.fromkeys(hashes, "0" * 64))
    with pytest.raises(WeightsError, match=f"the file of that name has {'0' * 64}"):
        load_extractor("kornia", model=model).identity()


@pytest.mark.parametrize("model", MODELS)
def test_features(model: str, tmp_path: Path) -> None:
    pytest.importorskip("kornia")
    weights = random_weights(model, tmp_path)
    extractor = load_extractor("kornia", model=model, weights=weights, max_keypoints=50)
    image = np.random.default_rng(0).integers(0, 255, (75, 101, 3), np.uint8)
    found = extractor(image)
    assert 0 < len(found) <= 50
    assert found.descriptors.shape[1] == extractor.dim
    assert found.keypoints.min() >= 0
    assert (found.keypoints <= [101, 75]).all()
    np.testing.assert_allclose(np.linalg.norm(found.descriptors, axis=1), 1, atol=1e-4)
    for size in (8, 31, 32, 33):
        found = extractor(image[:size, :size])
        assert found.image_size == (size, size)
        assert (found.keypoints <= size).all()
        assert len(found) == 0 or size >= MIN_EDGE
        flat = extractor(np.full((size, size + 9, 3), 90, np.uint8))
        assert flat.descriptors.shape == (len(flat), extractor.dim)
        assert np.isfinite(flat.keypoints).all()


def test_regions_are_in_colmap_pixels(tmp_path: Path) -> None:
    pytest.importorskip("kornia")
    rows, columns = np.mgrid[:80, :100] + 0.5
    grey = 255 * np.exp(-((columns - 60.5) ** 2 + (rows - 30.5) ** 2) / (2 * 4**2))
    image = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    weights = random_weights("hesaffnet_hardnet", tmp_path)
    found = load_extractor("kornia", weights=weights, max_keypoints=1)(image)
    np.testing.assert_allclose(found.keypoints, [[60.5, 30.5]], atol=0.3)


@pytest.mark.parametrize("model", ["hesaffnet_hardnet", "keynet_affnet_hardnet"])
def test_the_folder_of_the_authors_files(model: str, tmp_path: Path) -> None:
    """A checkpoint for each network."""
    pytest.importorskip("kornia")
    path = Path(random_weights(model, tmp_path))
    entries = torch.load(path, weights_only=True)
    folder = tmp_path / "theirs"
    folder.mkdir()
    for place, names in PARTS.items():
        theirs = part_of(entries, place)
        if theirs:
            torch.save({"epoch": 3, "state_dict": theirs}, folder / names[0])
    ours, found = (
        load_extractor("kornia", model=model, weights=str(p)).identity()["weights"]
        for p in (path, folder)
    )
    assert found == ours
    with pytest.raises(WeightsError, match=r"is a folder; give the path of depth-save\.pth"):
        load_extractor("kornia", model="disk", weights=str(folder)).identity()
    (folder / "HardNet++.pth").unlink()
    with pytest.raises(WeightsError, match=r"no HardNet\+\+\.pth or HardNetPP\.pth"):
        load_extractor("kornia", model=model, weights=str(folder)).identity()
    (folder / "AffNet.pth").rename(folder / "HardNetPP.pth")
    with pytest.raises(WeightsError, match="holds no AffNet"):
        load_extractor("kornia", model=model, weights=str(folder)).identity()
    torch.save({"state_dict": {"features.0.weight": torch.zeros(3)}}, folder / "AffNet.pth")
    with pytest.raises(
        WeightsError, match=r"AffNet\.pth: no tensor 'features\.0\.weight' of shape"
    ):
        load_extractor("kornia", model=model, weights=str(folder)).identity()


@pytest.mark.parametrize("model", ["disk", "aliked-n16", "xfeat"])
def test_the_authors_own_files(model: str, tmp_path: Path) -> None:
    """They differ from kornia's state dicts: in a level above, in what is not learned, in names."""
    pytest.importorskip("kornia")
    path = Path(random_weights(model, tmp_path))
    entries = torch.load(path, weights_only=True)
    theirs = {
        "disk": lambda: {"extractor": entries, "optimizer": {"step": 3}},
        "aliked-n16": lambda: {k: v for k, v in entries.items() if k != "dkd.hw_grid"},
        "xfeat": lambda: {k.removeprefix("net."): v for k, v in entries.items()},
    }[model]()
    torch.save(theirs, tmp_path / "theirs.pth")
    ours, found = (
        load_extractor("kornia", model=model, weights=str(p)).identity()["weights"]
        for p in (path, tmp_path / "theirs.pth")
    )
    assert found == ours


def test_alikeds_input_gets_no_border(tmp_path: Path) -> None:
    """It repeats the outer pixels itself where the size is not a multiple of 32."""
    kornia = pytest.importorskip("kornia.feature")
    weights = random_weights("aliked-n16", tmp_path)
    network = kornia.ALIKED("aliked-n16").eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    image = np.random.default_rng(0).integers(0, 255, (75, 101, 3), np.uint8)
    with torch.inference_mode():
        expected = network(torch.from_numpy(image.transpose(2, 0, 1)[None]).float() / 255)[0]
    found = load_extractor("kornia", model="aliked-n16", weights=weights)(image)
    order = np.argsort(-expected.keypoint_scores.numpy(), kind="stable")
    assert len(found) == len(order) > 0
    by_score = np.argsort(-found.scores, kind="stable")
    np.testing.assert_allclose(
        found.keypoints[by_score], expected.keypoints.numpy()[order] + 0.5, atol=1e-3
    )


def test_points_of_a_shrunk_input_are_where_they_were(tmp_path: Path) -> None:
    """XFeat shrinks 101 x 75 to 96 x 64; a pixel's centre goes with its pixel."""
    pytest.importorskip("kornia")
    extractor: Any = load_extractor(
        "kornia", model="xfeat", weights=random_weights("xfeat", tmp_path)
    )
    image = np.random.default_rng(0).integers(0, 255, (75, 101, 3), np.uint8)
    shrunk = extractor(image).keypoints * [96 / 101, 64 / 75]
    assert len(shrunk) > 0
    np.testing.assert_allclose(shrunk % 1, 0.5, atol=1e-3)


def test_keynets_keypoints_are_centres_of_pixels_of_their_levels(tmp_path: Path) -> None:
    pytest.importorskip("kornia")
    model = "keynet_affnet_hardnet"
    weights = random_weights(model, tmp_path)
    extractor = load_extractor("kornia", model=model, weights=weights)
    found = extractor(np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8))
    ratio = found.scales[:, None] / 22  # photo pixels a pixel of the level
    assert len(np.unique(ratio.round(3))) > 2
    np.testing.assert_allclose((found.keypoints / ratio) % 1, 0.5, atol=1e-3)


def test_weights_of_another_model(tmp_path: Path) -> None:
    pytest.importorskip("kornia")

    def told(model: str, path: Path | str) -> str:
        with pytest.raises(WeightsError) as caught:
            load_extractor("kornia", model=model, weights=str(path)).identity()
        return str(caught.value).removeprefix(f"{path}: ")

    disk = random_weights("disk", tmp_path)
    expected = (
        "no tensor 'block1.conv1.weight' of shape (16, 3, 3, 3), so this is not in the layout of "
    )
    assert told("aliked-n16", disk) == f"{expected}aliked-n16.pth (Shiaoming/ALIKED)"
    n16 = random_weights("aliked-n16", tmp_path)
    assert told("aliked-n32", n16).startswith("no tensor 'desc_head.agg_weights' of shape (32,")
    assert told("hesaffnet_hardnet", n16).endswith(
        "the layout of a state dict of the whole, or a folder with its authors' files"
    )
    (tmp_path / "bad.pth").write_bytes(b"nonsense")
    assert "not a readable" in told("disk", tmp_path / "bad.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    assert "no tensor 'unet." in told("disk", tmp_path / "list.pth")
    assert told("xfeat", tmp_path / "absent.pt") == (
        "no such weights file; give the path of xfeat.pt (verlab/accelerated_features)"
    )
