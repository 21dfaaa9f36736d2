"""Extraction: photos held sideways, and photos that change while the run reads them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import reconstruct
from reconstruct.datasets.synthetic import SyntheticDataset
from reconstruct.errors import ImageError
from reconstruct.orientation import upright
from reconstruct.stages import extract as stage
from reconstruct.stages import extract_worker
from reconstruct.stages import photos as known_photos
from reconstruct.storage.features import open_features

TURNED = 8  # the stored picture is to be turned a quarter counterclockwise


@pytest.fixture
def run(chain: Path, tmp_path: Path) -> Callable[..., reconstruct.Run]:
    def call(photos: Path, output: str = "out", **overrides: object) -> reconstruct.Run:
        settings = {key.replace("__", "."): value for key, value in overrides.items()}
        return reconstruct.run(chain, photos, tmp_path / output, settings, verbosity=-1)

    return call


def sideways(square: SyntheticDataset, folder: Path) -> Path:
    """The square with every other photo stored sideways, without loss, and a tag that says so."""
    folder.mkdir()
    for number, name in enumerate(square.names[:4]):
        pixels = np.asarray(Image.open(square.images / name).convert("RGB"))
        exif = Image.Exif()
        if number % 2:
            pixels = upright(pixels, 6)  # the inverse turn
            exif[0x0112] = TURNED
        Image.fromarray(pixels).save(folder / f"{Path(name).stem}.png", exif=exif)
    return folder


def test_photos_held_sideways_match_as_upright_ones_do(
    square: SyntheticDataset, run: Callable[..., reconstruct.Run], tmp_path: Path
) -> None:
    photos = sideways(square, tmp_path / "sideways")
    upright_only = {"extract__local__upright": True}  # SIFT that is not invariant to rotation
    ignored = run(photos, "ignored", extract__orientation="stored", pair={"method": "exhaustive"})
    turned = run(photos, "turned", **upright_only)
    blind = run(photos, "blind", extract__orientation="stored", map=None, **upright_only)
    assert turned.model is not None
    assert turned.model.num_reg_images() == 4
    pairs = [r.summary.figures["verify"]["verified_pairs"] for r in (turned, ignored)]
    assert pairs[0] == pairs[1] == 6
    assert blind.summary.figures["verify"]["verified_pairs"] < 6
    for name in open_features(tmp_path / "turned").names:
        features = open_features(tmp_path / "turned").load(name)
        with Image.open(photos / name) as image:
            assert features.image_size == image.size, "keypoints are in the stored picture"
        assert (features.keypoints <= features.image_size).all()


def test_a_photo_that_changes_while_it_is_read_is_not_taken_for_the_old_one(
    square: SyntheticDataset,
    photos: Path,
    run: Callable[..., reconstruct.Run],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed = sorted(photos.iterdir())[0]

    def read(path: Path) -> bytes:
        reads.append(path)
        if path == changed and reads.count(path) == 2:  # the first time it was hashed
            shutil.copy(square.images / square.names[5], changed)
        return original_read(path)

    reads: list[Path] = []
    original_read = stage.read_image_bytes
    for reader in (stage, extract_worker):
        monkeypatch.setattr(reader, "read_image_bytes", read)
    first = run(photos)
    assert "changed while" in first.summary.skipped[changed.name]
    second = run(photos)
    assert second.summary.figures["extract"]["extracted_now"] == 0, "what was read is kept as that"
    assert second.summary.figures["map"]["registered_images"] == 4
    fresh = run(photos, "fresh")
    stores = open_features(tmp_path / "out"), open_features(tmp_path / "fresh")
    assert stores[0].fingerprints() == stores[1].fingerprints()
    np.testing.assert_array_equal(*(store.keypoints(changed.name) for store in stores))
    assert fresh.summary.skipped == {}


def test_no_keypoints_where_a_photo_is_transparent(
    square: SyntheticDataset, run: Callable[..., reconstruct.Run], tmp_path: Path
) -> None:
    photos, masks = tmp_path / "cut out", tmp_path / "masks"
    photos.mkdir()
    masks.mkdir()
    alpha = np.full((240, 320), 255, np.uint8)
    alpha[:, :160] = 0
    for name in square.names[:3]:
        with Image.open(square.images / name) as image:
            picture = image.convert("RGBA")
        picture.putalpha(Image.fromarray(alpha))
        picture.save(photos / f"{Path(name).stem}.png")
    shutil.copy(square.images / square.names[3], photos / "opaque.jpg")
    first = sorted(path.name for path in photos.glob("*.png"))[0]
    Image.fromarray(255 - alpha).save(masks / f"{first}.png")
    settings = {"map": None, "pair": {"method": "exhaustive"}, "verify": None, "match": None}

    def left_of_middle(output: str, **more: object) -> dict[str, tuple[int, int]]:
        run(photos, output, **settings, **more)
        features = open_features(tmp_path / output)
        loaded = {name: features.load(name).keypoints[:, 0] for name in features.names}
        return {name: (int((x < 160).sum()), int((x > 160).sum())) for name, x in loaded.items()}

    plain = left_of_middle("out")
    assert min(min(counts) for counts in plain.values()) > 0
    found = left_of_middle("out", dataset__alpha_masks=True)
    assert found["opaque.jpg"] == plain["opaque.jpg"]
    assert {
        name: counts[0] for name, counts in found.items() if name != "opaque.jpg"
    } == dict.fromkeys(sorted(set(plain) - {"opaque.jpg"}), 0)
    both = left_of_middle("both", dataset__alpha_masks=True, dataset__masks=str(masks))
    assert both[first][1] == 0, "the file comes first"
    assert left_of_middle("out") == plain


def test_a_photo_that_changes_before_it_is_aligned_ends_the_run(
    photos: Path,
    run: Callable[..., reconstruct.Run],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed = sorted(photos.iterdir())[1]
    original_read = known_photos.read_image_bytes

    def read(path: Path) -> bytes:
        return original_read(path) + b"\0" * (path == changed)

    with monkeypatch.context() as patch:
        patch.setattr(known_photos, "read_image_bytes", read)
        with pytest.raises(ImageError, match=f"{changed.name}: changed since its features"):
            run(photos, refine={})
    assert run(photos, refine={}).summary.figures["map"]["registered_images"] == 4


def test_large_photos_are_decoded_one_at_a_time(
    photos: Path, run: Callable[..., reconstruct.Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once: list[int] = []
    running = 0

    def decode(*arguments: Any, **settings: Any) -> Any:
        nonlocal running
        running += 1
        at_once.append(running)
        time.sleep(0.05)
        running -= 1
        return original_decode(*arguments, **settings)

    original_decode = extract_worker.decode_image
    monkeypatch.setattr(extract_worker, "decode_image", decode)
    monkeypatch.setattr(extract_worker, "LARGE_PIXELS", 1000)
    run(photos, extract__loaders=4, verify=None, map=None)
    assert at_once == [1, 1, 1, 1]
