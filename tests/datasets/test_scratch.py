"""What is made of photos and clips never takes the place of somebody's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets.test_video import pan, write_clip
from PIL import Image

from reconstruct.datasets.conversion import convert_photos
from reconstruct.datasets.folder import list_images
from reconstruct.datasets.video import VideoConfig, take_frames
from reconstruct.errors import UsageError
from reconstruct.ownership import MARKER


def photo(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path)
    return path


def make(kind: str, folder: Path, images: Path) -> None:
    """Make ``images`` of two photos, or of a clip."""
    if kind == "conversion":
        names = [photo(folder / "photos" / name).name for name in ("a.webp", "b.jpg")]
        convert_photos(folder / "photos", names, images)
    else:
        clip = write_clip(folder / "clip.avi", pan(8))
        take_frames(clip, images, VideoConfig(format="video", path=str(clip)))


@pytest.mark.parametrize("kind", ["conversion", "video"])
def test_photos_of_somebody_else_are_not_replaced(kind: str, tmp_path: Path) -> None:
    images = tmp_path / "out" / "dataset" / "images"
    theirs = photo(images / "b.jpg")
    before = theirs.read_bytes()
    with pytest.raises(UsageError, match=r"did not write \(images\)"):
        make(kind, tmp_path, images)
    assert not theirs.is_symlink()
    assert theirs.read_bytes() == before


@pytest.mark.parametrize("kind", ["conversion", "video"])
def test_what_a_release_without_markers_made_is_known_by_its_record(
    kind: str, tmp_path: Path
) -> None:
    images = tmp_path / "out" / "dataset" / "images"
    make(kind, tmp_path, images)
    (images.parent / MARKER).unlink()
    make(kind, tmp_path, images)
    assert (images.parent / MARKER).is_file()


def test_photos_are_not_converted_into_their_own_folder(tmp_path: Path) -> None:
    images = tmp_path / "dataset" / "images"
    make("conversion", tmp_path, images)
    added = photo(images / "new.webp")
    with pytest.raises(UsageError, match="converted into this folder"):
        convert_photos(images, ["a.webp.jpg", "b.jpg", "new.webp"], images)
    assert added.is_file()
    assert (images / "a.webp.jpg").is_file()


def test_what_was_made_of_photos_among_them_is_passed_over(tmp_path: Path) -> None:
    for name in ("a.jpg", "out/own.jpg", "out/dataset/images/a.webp.jpg"):
        photo(tmp_path / name)
    (tmp_path / "out" / MARKER).touch()
    assert list_images(tmp_path)[0] == ("a.jpg", "out/dataset/images/a.webp.jpg", "out/own.jpg")
    (tmp_path / "out" / "dataset" / MARKER).touch()
    assert list_images(tmp_path)[0] == ("a.jpg", "out/own.jpg")
    assert list_images(tmp_path / "out" / "dataset")[0] == ("images/a.webp.jpg",), "asked for"
