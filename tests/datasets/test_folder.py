from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from reconstruct.datasets.folder import list_images
from reconstruct.errors import DataError, UsageError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_names_are_sorted_relative_and_of_any_characters(tmp_path: Path) -> None:
    names = ["Grüße/写真 1.jpg", "a-b.jpg", "a/b.jpg", 'b\'s "best".PNG', "z.tiff"]
    touch(tmp_path, *reversed(names))
    assert list_images(tmp_path) == (tuple(sorted(names)), {})


def test_other_files_are_passed_over_and_unusable_ones_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", ".hidden.jpg", ".git/b.jpg", "notes.txt", "c", "d.jpg.md5")
    touch(tmp_path, "phone.HEIC", "line\nbreak.jpg")
    names, skipped = list_images(tmp_path)
    assert names == ("a.jpg",)
    assert skipped == {
        "line\nbreak.jpg": "its name holds a control character; rename it",
        "phone.HEIC": "COLMAP cannot read .heic files; convert it to .jpg or .png",
    }


def test_a_name_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "good.jpg")
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    names, skipped = list_images(tmp_path)
    assert names == ("good.jpg",)
    assert skipped == {"caf?.jpg": "its name is not valid UTF-8; rename it"}


def test_folders_behind_links_belong_to_it(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "a.jpg")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "linked").symlink_to(tmp_path / "elsewhere")
    assert list_images(tmp_path / "root")[0] == ("linked/a.jpg",)


def test_a_folder_that_links_lead_to_again_counts_once(tmp_path: Path) -> None:
    root = tmp_path / "root"
    touch(root, "a/1.jpg", "a/b/2.jpg", "z/3.jpg")
    touch(tmp_path / "elsewhere", "4.jpg")
    (root / "a" / "loop").symlink_to(root)
    (root / "a" / "up").symlink_to(tmp_path)  # from which root is seen again
    (root / "again").symlink_to(root / "z")
    for name in ("first", "second"):
        (root / name).symlink_to(tmp_path / "elsewhere")
    assert list_images(root)[0] == ("a/1.jpg", "a/b/2.jpg", "first/4.jpg", "z/3.jpg")


def test_pipes_sockets_and_devices_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "good.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.jpg"))
        names, skipped = list_images(tmp_path)
    assert names == ("good.jpg",)
    kinds = ("device.jpg", "pipe.jpg", "socket.jpg")
    assert skipped == dict.fromkeys(kinds, "not a regular file")


def test_nothing_to_list(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images in this folder .*\.jpg"):
        list_images(tmp_path)
    for root in (tmp_path / "absent", tmp_path / "file.jpg"):
        touch(tmp_path, "file.jpg")
        with pytest.raises(UsageError, match="no such folder; give the folder of photos"):
            list_images(root)
