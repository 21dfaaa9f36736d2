"""EXIF orientations, against Pillow's own transposition and on marked pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from reconstruct.images import decode_image, exif_orientation
from reconstruct.orientation import (
    stored_features,
    stored_points,
    turned_further,
    upright,
    upright_points,
    upright_size,
)
from reconstruct.types import LocalFeatures

SIZE = (7, 4)
ALL = range(1, 9)


def photo(orientation: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(3).integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("orientation", ALL)
def test_pixels_are_turned_as_pillow_turns_them(orientation: int) -> None:
    data = photo(orientation)
    assert exif_orientation(data) == orientation
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    found = upright(decode_image(data, "photo"), orientation)
    np.testing.assert_array_equal(found, expected)
    assert found.flags.c_contiguous
    assert upright_size(SIZE, orientation) == (found.shape[1], found.shape[0])


@pytest.mark.parametrize("orientation", ALL)
def test_keypoints_go_back_to_the_pixel_they_were_found_on(orientation: int) -> None:
    width, height = SIZE
    for column, row in [(0, 0), (width - 1, 0), (0, height - 1), (width - 1, height - 1), (2, 1)]:
        stored = np.zeros((height, width), np.uint8)
        stored[row, column] = 1
        ((y, x),) = np.argwhere(upright(stored, orientation))
        center = np.array([[x + 0.5, y + 0.5]])
        back = stored_points(center, SIZE, orientation)
        assert back.tolist() == [[column + 0.5, row + 0.5]]
        assert upright_points(back, SIZE, orientation).tolist() == center.tolist()


def test_features_are_of_the_stored_size() -> None:
    found = LocalFeatures(
        keypoints=np.array([[0.25, 0.5]], np.float32),
        scales=np.ones(1, np.float32),
        scores=np.ones(1, np.float32),
        descriptors=np.ones((1, 4), np.float32),
        image_size=(4, 7),
    )
    stored = stored_features(found, SIZE, 6)
    # Turned clockwise, the stored picture's bottom left corner comes to the top left.
    assert stored.keypoints.tolist() == [[0.5, 3.75]]
    assert stored.image_size == SIZE
    assert stored_features(found, (4, 7), 1) is found
    assert stored_points(np.zeros((0, 2)), SIZE, 5).shape == (0, 2)


def test_no_orientation_and_a_broken_one() -> None:
    assert exif_orientation(photo(6, "JPEG")) == 6
    assert exif_orientation(photo(6, "TIFF")) == 6
    assert exif_orientation(photo(9)) == 1
    file = io.BytesIO()
    Image.new("RGB", SIZE).save(file, "PNG")
    assert exif_orientation(file.getvalue()) == 1
    jpeg = photo(6, "JPEG")
    assert exif_orientation(jpeg.replace(b"Exif\0\0MM", b"Exif\0\0XX")) == 1
    assert exif_orientation(b"no image") == 1


@pytest.mark.parametrize("orientation", ALL)
@pytest.mark.parametrize("quarter_turns", range(4))
def test_an_upright_picture_can_be_turned_further(orientation: int, quarter_turns: int) -> None:
    stored = np.random.default_rng(4).integers(0, 256, (*SIZE[::-1], 3), dtype=np.uint8)
    expected = np.rot90(upright(stored, orientation), -quarter_turns)  # of numpy: counterclockwise
    found = upright(stored, turned_further(orientation, quarter_turns))
    np.testing.assert_array_equal(found, expected)
