"""kornia's extractors with random weights, and what is said where something is missing."""

from __future__ import annotations

import sys
import urllib.error
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from reconstruct.errors import UsageError, WeightsError
from reconstruct.features import kornia, load_extractor
from reconstruct.features.kornia import MIN_EDGE, PUBLISHED, KorniaConfig, build
from reconstruct.features.kornia_weights import PARTS

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


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kornia.feature", None)
    with pytest.raises(UsageError, match=r"reconstruct\[kornia\]"):
        load_extractor("kornia")(np.zeros((32, 32, 3), np.uint8))


@pytest.mark.parametrize("model", [model for model in MODELS if model not in PUBLISHED])
def test_offline(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise urllib.error.URLError("no network")

    library = SimpleNamespace()
    library.ScaleSpaceDetector = library.KeyNetDetector = unreachable
    for name in ("BlobHessian", "PassLAF", "LAFAffNetShapeEstimator"):
        setattr(library, name, lambda *args, **kwargs: None)
    geometry = SimpleNamespace(ScalePyramid=lambda *args, **kwargs: None)
    monkeypatch.setitem(sys.modules, "kornia.feature", library)
    monkeypatch.setitem(sys.modules, "kornia.geometry", geometry)
    with pytest.raises(WeightsError, match=f"{model}: kornia cannot fetch.*no network.*weights"):
        load_extractor("kornia", model=model)(np.zeros((32, 32, 3), np.uint8))


@pytest.mark.parametrize("model", PUBLISHED)
def test_what_the_authors_publish_is_checked(
    model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RECONSTRUCT_CACHE", str(tmp_path))
    known = replace(PUBLISHED[model], folders=())
    monkeypatch.setattr(kornia, "PUBLISHED", {model: known})
    config = KorniaConfig.model_validate({"model": model})
    with pytest.raises(WeightsError, match=rf"{known.file}: not in the cache"):
        kornia.weights_file(config)
    (tmp_path / known.file).write_bytes(b"other weights")
    with pytest.raises(WeightsError, match=f"the file of that name has {known.sha256}"):
        kornia.weights_file(config)
    assert kornia.weights_file(KorniaConfig(model="hesaffnet_hardnet")) is None


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
    """A checkpoint for each network, older than the counters of batches."""
    pytest.importorskip("kornia")
    path = Path(random_weights(model, tmp_path))
    entries = torch.load(path, weights_only=True)
    folder = tmp_path / "theirs"
    folder.mkdir()
    for place, names in PARTS.items():
        theirs = {
            key.removeprefix(f"{place}."): value
            for key, value in entries.items()
            if key.startswith(f"{place}.") and not key.endswith("num_batches_tracked")
        }
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
