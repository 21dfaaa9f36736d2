from __future__ import annotations

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from reconstruct.errors import ImageError
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
