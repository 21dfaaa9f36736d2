from __future__ import annotations

import os
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, features

from reconstruct import images
from reconstruct.errors import ArtifactError, ImageError
from reconstruct.fingerprints import file_hash
from reconstruct.images import image_size, read_image, shrink, to_grey


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def sixteen_bits(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.uint16) << 8) + 77  # the low byte is dropped


def test_pixels_of_every_kind_of_file(rgb: np.ndarray, tmp_path: Path) -> None:
    grey = np.repeat(rgb[..., :1], 3, axis=2)
    image, one = Image.fromarray(rgb), Image.fromarray(rgb[..., 0])
    cv2.imwrite(str(tmp_path / "rgb16.png"), sixteen_bits(rgb[..., ::-1]))
    cv2.imwrite(str(tmp_path / "grey16.pgm"), sixteen_bits(rgb[..., 0]))
    deep = Image.fromarray(sixteen_bits(rgb[..., 0]))
    exact = {
        save(tmp_path / "rgb.png", image): rgb,
        save(tmp_path / "rgb.TIFF", image): rgb,
        save(tmp_path / "rgb.bmp", image): rgb,
        save(tmp_path / "grey.png", one): grey,
        save(tmp_path / "grey16.png", deep): grey,
        save(tmp_path / "grey16.tif", deep): grey,
        tmp_path / "grey16.pgm": grey,
        tmp_path / "rgb16.png": rgb,
        save(tmp_path / "rgba.png", Image.fromarray(np.dstack([rgb, rgb[..., 0]]))): rgb,
        save(tmp_path / "cmyk.tif", image.convert("CMYK")): rgb,
        save(tmp_path / "bits.png", Image.fromarray(rgb[..., 0] > 99)): (grey > 99) * np.uint8(255),
    }
    for path, expected in exact.items():
        found = read_image(path)
        np.testing.assert_array_equal(found, expected, err_msg=path.name, strict=True)
        assert found.flags.c_contiguous
        assert found.flags.writeable
        assert image_size(path) == (8, 6)


def test_a_cmyk_jpeg_is_not_inverted(tmp_path: Path) -> None:
    flat = Image.new("RGB", (16, 16), (200, 120, 30)).convert("CMYK")
    found = read_image(save(tmp_path / "cmyk.jpg", flat, quality=100))
    assert np.abs(found.astype(int) - [200, 120, 30]).max() <= 2


def test_large_pictures_are_taken_over_in_strips(
    rgb: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(rgb).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "STRIP_ROWS", 4)
    assert len(rgb) == 6, "the last strip is shorter"
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), rgb)


def test_exif_orientation_leaves_pixels_as_stored(rgb: np.ndarray, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    path = save(tmp_path / "turned.png", Image.fromarray(rgb), exif=exif)
    np.testing.assert_array_equal(read_image(path), rgb)
    assert image_size(path) == (8, 6)


def test_what_is_no_image_says_so(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    whole = save(tmp_path / "whole.jpg", Image.fromarray(noise))
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:-600])
    (tmp_path / "text.jpg").write_text("not a photo")
    (tmp_path / "empty.jpg").write_bytes(b"")
    for name in ("cut", "text", "empty"):
        with pytest.raises(ImageError, match=rf"{name}\.jpg: not a readable image .* replace"):
            read_image(tmp_path / f"{name}.jpg")
    with pytest.raises(ImageError, match=r"gone\.jpg: no such file"):
        read_image(tmp_path / "gone.jpg")
    deep = save(tmp_path / "float.tif", Image.fromarray(np.zeros((4, 4), np.float32)))
    with pytest.raises(ImageError, match="floating-point"):
        read_image(deep)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("WEBP", "WebP"),
        ("GIF", "GIF"),
        ("AVIF", "AVIF"),
        ("JPEG2000", "JPEG 2000"),
        ("PCX", "PCX"),
        ("ICO", "ICO"),
        ("EPS", "PostScript"),
    ],
)
def test_content_that_colmap_does_not_read_is_refused_by_name(
    kind: str, told: str, rgb: np.ndarray, tmp_path: Path
) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow was built without AVIF")
    path = save(tmp_path / "photo.jpg", Image.fromarray(rgb), format=kind)
    for read in (read_image, image_size):
        with pytest.raises(ImageError, match=rf"photo\.jpg: its content is {told}.*convert"):
            read(path)


def test_content_decides_and_not_the_name(rgb: np.ndarray, tmp_path: Path) -> None:
    path = save(tmp_path / "really-a-tiff.jpg", Image.fromarray(rgb), format="TIFF")
    np.testing.assert_array_equal(read_image(path), rgb)


def test_pipes_and_devices_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "device.jpg"):
        for read in (read_image, image_size):
            with pytest.raises(ImageError, match=rf"{name}: .*not a regular file"):
                read(tmp_path / name)
        with pytest.raises(ArtifactError, match="not a regular file"):
            file_hash(tmp_path / name)


def test_a_limit_on_megapixels(tmp_path: Path) -> None:
    path = save(tmp_path / "wide.png", Image.new("L", (2000, 1000)))
    assert read_image(path, max_megapixels=2.0).shape == (1000, 2000, 3)
    with pytest.raises(ImageError, match=r"2000 x 1000 pixels are more than the limit of 1\.9"):
        read_image(path, max_megapixels=1.9)
    before = Image.MAX_IMAGE_PIXELS
    huge = save(tmp_path / "huge.png", Image.new("1", (20_000, 10_000)))  # as of some phones
    assert image_size(huge) == (20_000, 10_000), "Pillow alone would refuse it"
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_palette_with_transparency_warns_nobody(rgb: np.ndarray, tmp_path: Path) -> None:
    image = Image.fromarray(rgb).quantize(4)
    path = save(tmp_path / "palette.png", image, transparency=b"\x00\xff\x10\x00")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).shape == (6, 8, 3)


def test_grey_is_luma() -> None:
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    assert to_grey(image).tolist() == [[76, 150, 29, 255]]


def test_images_are_shrunk_by_averaging_and_never_enlarged() -> None:
    grey = np.array([[0, 100, 8, 8], [100, 0, 8, 8]], np.uint8)
    assert shrink(grey, 2).tolist() == [[50, 8]]
    assert shrink(grey, None, 3).tolist() == [[50, 8]]
    assert shrink(grey.astype(np.float32), 2).dtype == np.float32
    assert shrink(grey, 4) is grey
    assert shrink(grey[:, ::-1], None).flags.c_contiguous
