from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from reconstruct.command.doctor import examine_machine
from reconstruct.command.photos import examine_photos


def test_the_machine_is_told(tmp_path: Path) -> None:
    found = {finding.subject: finding for finding in examine_machine(tmp_path / "not" / "yet")}
    assert {"python", "torch", "pycolmap", "cpu", "weights vgg16", "disk"} <= set(found)
    assert found["disk"].text.endswith(f"GB free at {tmp_path}")
    assert found["weights vgg16"].level == "ok"


def texts(folder: Path, subject: str) -> list[str]:
    return [finding.text for finding in examine_photos(folder) if finding.subject == subject]


def test_photos_are_told_with_their_troubles(photos: Path) -> None:
    first, second, third, fourth = sorted(photos.iterdir())
    shutil.copy(first, photos / "copy.jpg")
    (photos / "phone.heic").write_bytes(b"")
    second.write_bytes(b"no image")
    exif = Image.Exif()
    exif[0x0110], exif[0x0112], exif[0x8769] = "Model T", 6, {0x920A: 35.0}
    with Image.open(third) as image:
        image.rotate(90, expand=True).save(third, exif=exif)
    assert texts(photos, "photos") == [f"4 in {photos}"]
    assert texts(photos, "pairs") == ["6 exhaustive pairs"]
    assert texts(photos, "disk")[0].startswith("about 24 MB for features")
    assert texts(photos, "sizes")[0] == "320 x 240 (3), 240 x 320 (1)"
    assert texts(photos, "cameras") == ["unknown (3), Model T (1)"]
    assert texts(photos, "EXIF")[0].startswith(f"copy.jpg, {first.name}, {fourth.name} without")
    assert texts(photos, "orientation")[0].startswith(f"{third.name} shown turned by viewers")
    assert texts(photos, "copies")[0].startswith(f"the same file: copy.jpg, {first.name};")
    troubles = {f.subject for f in examine_photos(photos) if f.level == "trouble"}
    assert troubles - {"phone.heic"} == {second.name}
    pytest.importorskip("pillow_heif")
    assert texts(photos, "formats")[0].startswith("phone.heic: converted to JPEG when a run starts")


def test_pictures_of_the_shape_of_panoramas_are_told(photos: Path) -> None:
    assert len(texts(photos, "sizes")) == 1 + 1, "and that these are small"
    Image.new("RGB", (900, 450)).save(photos / "around.jpg")
    assert texts(photos, "sizes")[-1].startswith("around.jpg twice as wide as high; for 360")


def test_photos_that_need_a_package_are_a_trouble(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "phone.heic").write_bytes(b"")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (told,) = (f for f in examine_photos(photos) if f.level == "trouble")
    assert told.subject == "phone.heic"
    assert "pip install 'reconstruct[heif]'" in told.text


def test_the_command_says_so_in_its_exit_status(command: Any, photos: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"no image")
    found = command("doctor", photos, "--json")
    assert found.status == 1
    assert "broken.jpg" in [item["subject"] for item in json.loads(found.out)]
    assert "trouble  broken.jpg" in command("doctor", photos).out
