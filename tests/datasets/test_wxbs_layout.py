"""The WxBS layout."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from reconstruct.datasets.wxbs import WxBSConfig, load_wxbs
from reconstruct.errors import DataError, UsageError


def write_pair(folder: Path, text: str = "1 2 3 4\n", extension: str = ".png") -> None:
    folder.mkdir(parents=True)
    for name in ("01", "02"):
        cv2.imwrite(str(folder / f"{name}{extension}"), np.zeros((8, 8, 3), np.uint8))
    (folder / "corrs.txt").write_text(text)


def config(root: Path) -> WxBSConfig:
    return WxBSConfig(format="wxbs", images=str(root))


def test_pairs_and_correspondences_in_colmap_pixels(tmp_path: Path) -> None:
    write_pair(tmp_path / "WGABS" / "a", "0 0 7 7\n1 2 3 4\n")
    write_pair(tmp_path / "WLABS" / "b", extension=".jpg")
    data = load_wxbs(config(tmp_path))
    assert data.dataset.names == (
        "WGABS/a/01.png",
        "WGABS/a/02.png",
        "WLABS/b/01.jpg",
        "WLABS/b/02.jpg",
    )
    rows = data.correspondences["WGABS/a/01.png", "WGABS/a/02.png"]
    assert rows.tolist() == [[0.5, 0.5, 7.5, 7.5], [1.5, 2.5, 3.5, 4.5]]


def test_incomplete_pairs_are_skipped(tmp_path: Path) -> None:
    write_pair(tmp_path / "WGABS" / "a")
    write_pair(tmp_path / "WGABS" / "b")
    (tmp_path / "WGABS" / "b" / "02.png").unlink()
    data = load_wxbs(config(tmp_path))
    assert len(data.correspondences) == 1
    assert "no 02" in data.dataset.skipped["WGABS/b"]


@pytest.mark.parametrize("text", ["1 2 3\n", "1 2 3 x\n", "1 2 3 nan\n"])
def test_unreadable_correspondences(tmp_path: Path, text: str) -> None:
    write_pair(tmp_path / "WGABS" / "a", text)
    with pytest.raises(DataError, match=r"corrs\.txt"):
        load_wxbs(config(tmp_path))


def test_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--images"):
        load_wxbs(config(tmp_path / "absent"))
    with pytest.raises(DataError, match="no pair"):
        load_wxbs(config(tmp_path))
