"""The HPatches layout: what is read, what is left out, and which way homographies point."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from planes import SIZE, TILT, texture, write_sequence

from reconstruct.datasets.hpatches import (
    HPatchesConfig,
    check_directions,
    load_hpatches,
    read_homography,
    warp_correlation,
)
from reconstruct.errors import DataError, UsageError


def config(root: Path, **settings: object) -> HPatchesConfig:
    return HPatchesConfig.model_validate({"format": "hpatches", "images": str(root), **settings})


def test_images_pairs_and_kinds(tmp_path: Path) -> None:
    write_sequence(tmp_path / "v_tilt", TILT)
    write_sequence(tmp_path / "i_still", np.eye(3), extension=".ppm")
    write_sequence(tmp_path / "v_talent", TILT)  # too large in the public set: left out
    (tmp_path / "notes").mkdir()
    data = load_hpatches(config(tmp_path))
    assert data.sequences == ("i_still", "v_tilt")
    assert data.left_out == ("v_talent",)
    assert len(data.dataset.names) == 12
    assert ("i_still/1.ppm", "i_still/6.ppm") in data.homographies
    assert len(data.homographies) == 10
    assert data.dataset.skipped == {}


def test_homographies_are_in_colmap_pixels(tmp_path: Path) -> None:
    np.savetxt(tmp_path / "H_1_2", np.diag([2.0, 2.0, 1.0]) * 3)
    found = read_homography(tmp_path / "H_1_2")
    # The first pixel's centre stays the first pixel's centre.
    np.testing.assert_allclose(found @ [0.5, 0.5, 1.0], [0.5, 0.5, 1.0])
    np.testing.assert_allclose(found @ [1.5, 0.5, 1.0], [2.5, 0.5, 1.0])


@pytest.mark.parametrize(
    "text", ["", "1 2 3", "1 0 0\n0 1 0\n0 0 0", "1 0 0\n0 -1 0\n0 0 1", "1 0 0\n0 x 0\n0 0 1"]
)
def test_what_is_no_homography_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "H_1_2").write_text(text)
    with pytest.raises(DataError, match="H_1_2"):
        read_homography(tmp_path / "H_1_2")


def test_incomplete_sequences_are_skipped_by_name(tmp_path: Path) -> None:
    write_sequence(tmp_path / "v_tilt", TILT)
    write_sequence(tmp_path / "v_torn", TILT)
    (tmp_path / "v_torn" / "3.png").unlink()
    (tmp_path / "v_torn" / "H_1_5").unlink()
    data = load_hpatches(config(tmp_path))
    assert data.sequences == ("v_tilt",)
    assert data.dataset.skipped == {"v_torn": "incomplete: no image 3, H_1_5"}


def test_chosen_sequences(tmp_path: Path) -> None:
    write_sequence(tmp_path / "v_tilt", TILT)
    write_sequence(tmp_path / "v_other", TILT)
    assert load_hpatches(config(tmp_path, sequences=["v_tilt"])).sequences == ("v_tilt",)
    with pytest.raises(UsageError, match=r"v_tlit.*did you mean 'v_tilt'"):
        load_hpatches(config(tmp_path, sequences=["v_tlit"]))


def test_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--images"):
        load_hpatches(config(tmp_path / "absent"))
    with pytest.raises(DataError, match="no complete sequence"):
        load_hpatches(config(tmp_path))


def test_direction_is_checked(tmp_path: Path) -> None:
    write_sequence(tmp_path / "v_tilt", TILT)
    assert check_directions(load_hpatches(config(tmp_path)))["v_tilt"] > 0.95
    for k in range(2, 7):
        path = tmp_path / "v_tilt" / f"H_1_{k}"
        np.savetxt(path, np.linalg.inv(np.loadtxt(path)))
    with pytest.raises(DataError, match=r"v_tilt.*invert"):
        check_directions(load_hpatches(config(tmp_path)))


def test_warp_correlation() -> None:
    grey = cv2.cvtColor(texture(), cv2.COLOR_RGB2GRAY)
    far = np.array([[1.0, 0.0, 10.0 * SIZE[0]], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert warp_correlation(grey, grey, np.eye(3)) == pytest.approx(1.0)
    assert warp_correlation(grey, 255 - grey, np.eye(3)) == pytest.approx(-1.0)
    assert warp_correlation(grey, grey, far) == -1.0
    assert warp_correlation(grey, np.full_like(grey, 7), np.eye(3)) == 0.0


@pytest.mark.real
def test_public_sequences_point_the_right_way(shared_data: Path) -> None:
    found = check_directions(load_hpatches(config(shared_data / "hpatches")))
    assert min(found.values()) > 0.8
