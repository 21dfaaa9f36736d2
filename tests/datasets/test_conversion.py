"""Photos in formats that COLMAP does not open."""

from __future__ import annotations

import importlib.util
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from conftest import Command
from PIL import Image

from reconstruct import colmap
from reconstruct.datasets.conversion import CONVERTED, convert_photos, without_twins
from reconstruct.datasets.folder import list_images
from reconstruct.datasets.photos import FolderConfig
from reconstruct.datasets.synthetic import SyntheticDataset
from reconstruct.errors import DataError
from reconstruct.images import read_image

pillow_heif = pytest.importorskip("pillow_heif", reason="needs the extra `heif`")
FOCAL_MM, WIDE_MM = 4.25, 26


def pattern(size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Grey, with a blue corner."""
    image = Image.new("RGB", size, (120, 120, 120))
    image.paste((0, 0, 255), (0, 0, 16, 16))
    return image


def exif(orientation: int = 1) -> bytes:
    found = Image.Exif()
    found[0x010F], found[0x0112] = "Maker", orientation
    found.get_ifd(0x8769).update({0x920A: FOCAL_MM, 0xA405: WIDE_MM, 0x927C: b"x" * 70000})
    found.get_ifd(0x8825).update({1: "N", 2: (47.0, 0.0, 0.0), 3: "E", 4: (8.0, 0.0, 0.0)})
    return found.tobytes()


def save(path: Path, image: Image.Image, tags: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in (".heic", ".heif"):
        pillow_heif.from_pillow(image).save(path, exif=tags or None, quality=95)
    else:
        image.save(path, exif=tags, quality=95)
    return path


def write_dng(path: Path, size: tuple[int, int], tags: dict[int, bytes]) -> Path:
    """A raw photo: the red, green and blue of a Bayer pattern, uncompressed 16-bit, little endian.

    Adobe's Digital Negative 1.4: only the tags that a reader cannot do without.
    """
    width, height = size
    y, x = np.mgrid[:height, :width]
    mosaic = np.where((x < 16) & (y < 16), np.where((x % 2) & (y % 2), 60000, 1000), 20000)
    data = mosaic.astype("<u2").tobytes()
    short, long, text, byte, rational, signed = 3, 4, 2, 1, 5, 10
    entries = [
        *((254, long, [0]), (256, long, [width]), (257, long, [height]), (258, short, [16])),
        *((259, short, [1]), (262, short, [32803]), (271, text, b"Maker\0"), (272, text, b"M1\0")),
        *((273, long, [None]), (277, short, [1]), (278, long, [height])),
        *((279, long, [len(data)]), (33421, short, [2, 2]), (33422, byte, bytes([0, 1, 1, 2]))),
        *((50706, byte, bytes([1, 4, 0, 0])), (50707, byte, bytes([1, 1, 0, 0]))),
        *((50714, long, [0]), (50717, long, [65535])),
        (50721, signed, [v for k in range(9) for v in (int(k % 4 == 0), 1)]),
        *((50728, rational, [1, 1] * 3), (50778, short, [21])),
    ]
    exif_entries = [(0x920A, rational, [425, 100]), (0xA405, short, [WIDE_MM])]
    count = len(entries) + 1
    first = 8
    exif_at = first + 2 + 12 * count + 4
    free = exif_at + 2 + 12 * len(exif_entries) + 4
    extra = b""

    def pack(kind: int, value: list[int | None] | bytes) -> tuple[int, bytes]:
        if isinstance(value, bytes):
            return len(value), value
        code = {short: "H", long: "I", rational: "I", signed: "i"}[kind]
        per = 2 if kind in (rational, signed) else 1
        return len(value) // per, struct.pack(f"<{len(value)}{code}", *(v or 0 for v in value))

    def directory(rows: list[tuple[int, int, list[int | None] | bytes]], data_at: int) -> bytes:
        nonlocal extra
        out = struct.pack("<H", len(rows))
        for tag, kind, value in sorted(rows):
            number, packed = pack(kind, [data_at] if value == [None] else value)
            if len(packed) > 4:
                at = free + len(extra)
                extra += packed + b"\0" * (len(packed) % 2)
                packed = struct.pack("<I", at)
            out += struct.pack("<HHI", tag, kind, number) + packed.ljust(4, b"\0")
        return out + struct.pack("<I", 0)

    rows = [*entries, (0x8769, long, [exif_at])]
    data_at = free + 4096
    head = struct.pack("<2sHI", b"II", 42, first)
    content = head + directory(rows, data_at) + directory(exif_entries, data_at) + extra
    path.write_bytes(content.ljust(data_at, b"\0") + data)
    return path


@pytest.mark.parametrize("suffix", [".heic", ".HEIF", ".avif", ".webp"])
def test_pixels_and_exif_are_kept(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / "in" / "a" / f"b{suffix}", pattern(), exif())
    found = convert_photos(tmp_path / "in", [f"a/b{suffix}"], tmp_path / "out")
    assert found.names == (f"a/b{suffix}.jpg",)
    assert found.originals == {f"a/b{suffix}.jpg": f"a/b{suffix}"}
    path = found.root / found.names[0]
    difference = np.abs(read_image(path).astype(int) - np.asarray(pattern()).astype(int))
    assert difference.mean() < 3
    plain = save(tmp_path / "plain.jpg", pattern(), exif()[:0])
    assert colmap.guess_camera(plain, "SIMPLE_RADIAL").params[0] == pytest.approx(1.2 * 64)
    camera = colmap.guess_camera(path, "SIMPLE_RADIAL")
    assert camera.has_prior_focal_length
    with Image.open(path) as image:
        tags = image.getexif()
        assert tags[0x010F] == "Maker"
        assert tags.get_ifd(0x8769)[0xA405] == WIDE_MM
        assert tags.get_ifd(0x8825)[1] == "N"


def test_a_photo_held_upright_has_the_camera_of_its_jpeg(tmp_path: Path) -> None:
    """A phone's HEIC is turned when it is read, its JPEG only when it is shown."""
    upright = pattern().transpose(Image.Transpose.ROTATE_270)
    heic = save(tmp_path / "in" / "a.heic", pattern(), exif(orientation=6))
    found = convert_photos(heic.parent, ["a.heic"], tmp_path / "out")
    picture = read_image(found.root / "a.heic.jpg")
    assert picture.shape == (64, 48, 3)
    assert np.abs(picture.astype(int) - np.asarray(upright).astype(int)).mean() < 3
    with Image.open(found.root / "a.heic.jpg") as image:
        assert image.getexif()[0x0112] == 1, "it is not turned again"
    jpeg = tmp_path / "a.jpg"
    small = Image.Exif()
    small.load(exif(orientation=6))
    small.get_ifd(0x8769).pop(0x927C)
    pattern().save(jpeg, exif=small.tobytes())
    focal = [
        colmap.guess_camera(path, "SIMPLE_RADIAL").params[0]
        for path in (jpeg, found.root / "a.heic.jpg")
    ]
    assert focal[0] == pytest.approx(focal[1])
    assert focal[0] != pytest.approx(1.2 * 64)


def test_a_raw_photo_is_developed_with_the_focal_length_of_its_exif(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    write_dng(source / "a.DNG", (96, 64), {})
    found = convert_photos(source, ["a.DNG"], tmp_path / "out")
    assert found.skipped == {}
    picture = read_image(found.root / "a.DNG.jpg").astype(int)
    assert picture.shape == (64, 96, 3)
    corner, rest = picture[4:12, 4:12].mean((0, 1)), picture[30:, 40:].mean((0, 1))
    assert corner[2] > corner[0] + 60, "blue"
    assert np.ptp(rest) < 30, "grey"
    camera = colmap.guess_camera(found.root / "a.DNG.jpg", "SIMPLE_RADIAL")
    diagonal = np.hypot(96, 64) / np.hypot(36, 24)
    assert camera.params[0] == pytest.approx(WIDE_MM * diagonal, rel=0.01)


def test_a_rerun_converts_what_changed_alone(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    for name in ("a.webp", "b.webp"):
        save(source / name, pattern(), b"")
    save(source / "c.jpg", pattern(), b"")
    names = ["a.webp", "b.webp", "c.jpg"]
    found = convert_photos(source, names, target)
    assert found.names == ("a.webp.jpg", "b.webp.jpg", "c.jpg")
    before = {n: (target / n).stat().st_mtime_ns for n in found.names}
    os.utime(source / "a.webp", ns=(0, 0))  # another time is no other content
    save(source / "b.webp", pattern((80, 60)), b"")
    assert convert_photos(source, names, target) == found
    after = {n: (target / n).stat().st_mtime_ns for n in found.names}
    assert [n for n in found.names if before[n] != after[n]] == ["b.webp.jpg"]
    (target / "a.webp.jpg").unlink()
    convert_photos(source, names, target)
    assert (target / "a.webp.jpg").is_file()


def test_damaged_photos_are_named_and_leave_nothing_behind(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    whole = {}
    for suffix in (".heic", ".avif", ".webp"):
        whole[suffix] = save(source / f"a{suffix}", pattern(), b"").read_bytes()
    write_dng(source / "a.dng", (32, 32), {})
    save(source / "z.jpg", pattern(), b"")
    names = ["a.heic", "a.avif", "a.webp", "a.dng", "z.jpg"]
    convert_photos(source, names, target)
    for suffix, content in whole.items():
        (source / f"a{suffix}").write_bytes(content[: len(content) // 2])
    (source / "a.dng").write_bytes(b"II*\0nothing")
    found = convert_photos(source, names, target)
    assert found.names == ("z.jpg",)
    assert set(found.skipped) == set(names[:4])
    assert all("replace or remove it" in reason for reason in found.skipped.values())
    (source / "a.webp").write_bytes(b"none")
    again = convert_photos(source, names, target)
    told = [{**c.skipped, **again.skipped} for c in (again, convert_photos(source, names, target))]
    assert told[0] == told[1], "else the report would be drawn again each time"
    assert not any("object at" in reason or "b'" in reason for reason in told[0].values())
    assert [path.name for path in target.iterdir()] == ["z.jpg"]
    with pytest.raises(DataError, match=r"none of 1 photos can be used, e\.g\. a\.heic"):
        convert_photos(source, ["a.heic"], target)


def test_without_the_extra_the_install_line_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    absent = ("pillow_heif", "rawpy")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in absent else find(name, *a)
    )
    save(tmp_path / "in" / "a.heic", pattern(), b"")
    save(tmp_path / "in" / "b.jpg", pattern(), b"")
    write_dng(tmp_path / "in" / "c.dng", (32, 32), {})
    config = FolderConfig(format="folder", images=str(tmp_path / "in"))
    dataset = config.load(tmp_path / "scratch")
    assert dataset.names == ("b.jpg",)
    assert "pip install 'reconstruct[heif]'" in dataset.skipped["a.heic"]
    assert "pip install 'reconstruct[raw]'" in dataset.skipped["c.dng"]


def test_of_a_photo_in_two_formats_the_plain_one_is_taken(tmp_path: Path) -> None:
    names = ["a/1.CR2", "a/1.jpg", "a/2.CR2", "b/1.CR2", "c.heic", "c.heic.jpg"]
    assert without_twins(names) == ["a/1.jpg", "a/2.CR2", "b/1.CR2", "c.heic.jpg"]
    assert without_twins([]) == []
    assert list_images(tmp_path_with(tmp_path, *names), CONVERTED)[0] == tuple(names)


def tmp_path_with(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_plain_photos_stay_where_they_are(square: SyntheticDataset, tmp_path: Path) -> None:
    config = FolderConfig(format="folder", images=str(square.images))
    dataset = config.load(tmp_path / "scratch")
    assert (dataset.root, dataset.originals) == (square.images, {})
    assert not (tmp_path / "scratch").exists()


def test_masks_queries_and_positions_go_by_the_names_of_the_originals(tmp_path: Path) -> None:
    photos, masks = tmp_path / "photos", tmp_path / "masks"
    masks.mkdir()
    for name in ("a.webp", "b.webp", "new/q.webp", "d.jpg"):
        save(photos / name, pattern(), b"")
    Image.new("L", (64, 48)).save(masks / "a.webp.png")
    (tmp_path / "gps.csv").write_text("name,latitude,longitude\na.webp,47,8\nd.jpg,47,8.1\n")
    (tmp_path / "list.txt").write_text("b.webp\n")
    settings = {"format": "folder", "images": str(photos), "masks": str(masks)}
    settings |= {"gps": {"positions": str(tmp_path / "gps.csv")}, "queries": str(photos / "new")}
    dataset = FolderConfig.model_validate(settings).load(tmp_path / "scratch")
    assert dataset.names == ("a.webp.jpg", "b.webp.jpg", "d.jpg", "new/q.webp.jpg")
    assert dataset.query_names == {"new/q.webp.jpg"}
    assert dataset.gps is not None
    assert set(dataset.gps.positions) == {"a.webp.jpg", "d.jpg"}
    assert dataset.original("a.webp.jpg") == "a.webp"
    settings["queries"] = str(tmp_path / "list.txt")
    assert FolderConfig.model_validate(settings).load(tmp_path / "scratch").query_names == {
        "b.webp.jpg"
    }


def test_the_same_scene_as_heic_is_the_same_model(
    command: Command, chain: Path, square: SyntheticDataset, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    for name in square.names:
        with Image.open(square.images / name) as image:
            save(photos / Path(name).with_suffix(".heic"), image.convert("RGB"), b"")
    output = tmp_path / "out"
    assert command("run", chain, "--images", photos, "--output", output, "-q").status == 0
    model = colmap.read_model(output / "sparse")
    assert sorted(colmap.model_poses(model)) == [
        f"{Path(name).stem}.heic.jpg" for name in sorted(square.names)
    ]
    before = (output / "sparse" / "images.bin").stat().st_mtime_ns
    assert command("run", chain, "--images", photos, "--output", output, "-q").status == 0
    assert (output / "sparse" / "images.bin").stat().st_mtime_ns == before
    assert command("export", output, "--format", "nerfstudio").status == 0
    shutil.rmtree(photos)
    assert "heic.jpg" in (output / "report.html").read_text()
