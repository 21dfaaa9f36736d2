"""Features from files."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from reconstruct.errors import ImageError, UsageError
from reconstruct.features import ReadsFiles, load_extractor
from reconstruct.features.precomputed import Precomputed, PrecomputedConfig, read_precomputed


def write(path: Path, **arrays: Any) -> Path:
    with open(path, "wb") as file:
        np.savez(file, **arrays)
    return path


def test_three_columns_scores_and_lengths(tmp_path: Path) -> None:
    path = write(
        tmp_path / "1.ppm.lf-net",
        keypoints=np.array([[10.0, 20.0, 2.0]]),
        scores=np.array([0.5]),
        descriptors=np.array([[3.0, 4.0]]),
    )
    found = read_precomputed(path, (100, 50))
    assert found.keypoints.tolist() == [[10.5, 20.5]]  # first pixel's centre: 0 -> 0.5
    assert (found.scales, found.scores) == (2.0, 0.5)
    np.testing.assert_allclose(found.descriptors, [[0.6, 0.8]])
    assert read_precomputed(path, (100, 50), 0.5).keypoints.tolist() == [[10.0, 20.0]]


def test_two_columns_without_scores_and_no_keypoint_at_all(tmp_path: Path) -> None:
    arrays = {"keypoints": np.zeros((0, 2)), "descriptors": np.zeros((0, 40))}
    found = read_precomputed(write(tmp_path / "a", **arrays), (8, 8))
    assert len(found) == 0
    assert found.descriptors.shape == (0, 40)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"keypoints": np.zeros((2, 2))}, "no array 'descriptors'"),
        ({"keypoints": np.full((2, 2), 1e300), "descriptors": np.ones((2, 8))}, "than finite"),
        ({"keypoints": np.zeros((2, 4)), "descriptors": np.ones((2, 8))}, "expected keypoints"),
        ({"keypoints": np.zeros((2, 2)), "descriptors": np.ones((3, 8))}, "2 keypoints, 3"),
        ({"keypoints": np.full((1, 2), np.nan), "descriptors": np.ones((1, 8))}, "finite"),
        ({"keypoints": np.array([["a", "b"]]), "descriptors": np.ones((1, 8))}, "finite"),
    ],
)
def test_unusable_arrays(tmp_path: Path, arrays: dict[str, Any], reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        read_precomputed(write(tmp_path / "a", **arrays), (8, 8))


def test_unusable_files(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no precomputed features"):
        read_precomputed(tmp_path / "absent", (8, 8))
    for content in (b"", b"nonsense", b"PK\x03\x04 cut off"):
        (tmp_path / "bad").write_bytes(content)
        with pytest.raises(ImageError, match="not a readable"):
            read_precomputed(tmp_path / "bad", (8, 8))


def head(shape: str, kind: str = "<f8") -> bytes:
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text = text.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        head("(1000000000000, 2)") + bytes(32),
        head("(-1, 2)") + bytes(32),
        head("(1000000000000,)", "|V0"),
        head("()") + bytes(8),
        head("(10**12, 2)") + bytes(32),
        b"\x93NUMPY\x09\x00" + bytes(100),
        b"",
    ],
)
def test_arrays_that_claim_what_they_are_not(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("keypoints.npy", content)
        archive.writestr("descriptors.npy", head("(2, 2)") + bytes(32))
    with pytest.raises(ImageError, match=f"{path}"):
        read_precomputed(path, (8, 8))


def test_an_encrypted_archive_and_a_bare_array(tmp_path: Path) -> None:
    path = write(tmp_path / "a", keypoints=np.zeros((2, 2)), descriptors=np.ones((2, 8)))
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(signature) + offset] |= 1  # the flag of encryption
    path.write_bytes(content)
    np.save(tmp_path / "b.npy", np.zeros((2, 2)))
    for file in (path, tmp_path / "b.npy"):
        with pytest.raises(ImageError, match=r"not a readable \.npz archive"):
            read_precomputed(file, (8, 8))


def test_one_file_of_another_dimension_is_named(tmp_path: Path) -> None:
    for name, dimension in (("a", 3), ("b", 4), ("c", 4)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((6, 8, 3), np.uint8))
        arrays = {"keypoints": np.ones((1, 2)), "descriptors": np.ones((1, dimension))}
        write(tmp_path / f"{name}.png.delf", **arrays)
    cv2.imwrite(str(tmp_path / "d.png"), np.zeros((6, 8, 3), np.uint8))
    write(tmp_path / "d.png.delf", keypoints=np.ones((0, 2)), descriptors=np.ones((0, 0)))
    extractor = Precomputed(PrecomputedConfig(method="delf"))
    with pytest.raises(ImageError, match=r"a\.png\.delf: descriptors of 3 dim.* others have 4"):
        extractor.prepare_file(tmp_path, "a.png")
    for name in ("b.png", "c.png", "d.png"):
        (found,) = extractor.extract([extractor.prepare_file(tmp_path, name)])
        assert found.descriptors.shape[1] == 4


@pytest.mark.parametrize("point", [(-3.0, 5.0), (5.0, 31.0), (1e30, 5.0)])
def test_keypoints_outside_of_the_picture_are_named(
    tmp_path: Path, point: tuple[float, float]
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 40, 3), np.uint8))
    keypoints = np.array([(5.0, 5.0), (40.5, 20.5), point])  # the second by half a pixel
    path = tmp_path / "a.png.method"
    extractor = Precomputed(PrecomputedConfig(method="method"))
    write(path, keypoints=keypoints[:2], descriptors=np.eye(2))
    assert len(extractor.extract([extractor.prepare_file(tmp_path, "a.png")])[0]) == 2
    write(path, keypoints=keypoints, descriptors=np.eye(3)[:, :2])
    with pytest.raises(ImageError, match=r"outside of the picture of 40 x 20 pixels; are these"):
        extractor.prepare_file(tmp_path, "a.png")


def test_found_by_the_images_name(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    cv2.imwrite(str(tmp_path / "a" / "1.png"), np.zeros((6, 8, 3), np.uint8))
    arrays = {"keypoints": np.ones((1, 2)), "descriptors": np.ones((1, 4))}
    write(tmp_path / "a" / "1.png.delf", **arrays)
    extractor = Precomputed(PrecomputedConfig(method="delf"))
    assert isinstance(extractor, ReadsFiles)
    (found,) = extractor.extract([extractor.prepare_file(tmp_path, "a/1.png")])
    assert found.image_size == (8, 6)
    assert found.keypoints.tolist() == [[1.5, 1.5]]
    elsewhere = Precomputed(PrecomputedConfig(method="delf", folder=str(tmp_path / "own")))
    assert elsewhere.file(tmp_path, "a/1.png") == tmp_path / "own" / "a" / "1.png.delf"
    assert elsewhere.identity() == extractor.identity()


def test_pixels_alone_do_not_do() -> None:
    with pytest.raises(UsageError, match="read_precomputed"):
        load_extractor("precomputed")(np.zeros((8, 8, 3), np.uint8))
