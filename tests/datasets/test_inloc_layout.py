"""InLoc's layout, as MATLAB writes it; what is missing is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from synthetic_building import ROOMS, write_building

from reconstruct.datasets.inloc import (
    InLocConfig,
    load_inloc,
    query_groups,
    read_transformation,
    read_xyz,
)
from reconstruct.errors import DataError, ImageError, UsageError


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six scans of two cut-outs and three queries. Not to be changed: copy it."""
    folder = tmp_path_factory.mktemp("building") / "inloc"
    return write_building(folder, pans=2, queries=3, size=(96, 72), texels_per_m=12.0)


@pytest.fixture
def building(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "inloc"))


def load(root: Path, **settings: object):  # type: ignore[no-untyped-def]
    return load_inloc(InLocConfig.model_validate({"format": "inloc", "root": str(root)} | settings))


def test_the_building_is_read_as_the_public_data_is(built: Path) -> None:
    data = load(built)
    assert data.skipped == {}
    assert len(data.rgbd.names) == 12
    assert len(data.queries) == 3
    name = "database/cutouts/DUC2/002/DUC_cutout_002_180_0.jpg"
    assert name in data.rgbd.names
    assert data.rgbd.place(name) == "DUC2/002"
    query = data.queries[0]
    assert query.name == "query/iphone7/IMG_0731.JPG"
    assert query.intrinsics.params == (96 * 28 / 36, 48.0, 36.0)
    assert {q.group for q in data.queries} == {"DUC1", "DUC2"}
    assert query_groups(data.reference)[query.name] == "DUC1"


def test_points_of_all_scans_are_in_one_frame(built: Path) -> None:
    data = load(built)
    for scan, (room, own) in {"DUC1/000": (ROOMS[0], 0), "DUC2/003": (ROOMS[1], 1)}.items():
        name = f"database/cutouts/{scan}/DUC_cutout_{scan[-3:]}_0_0.jpg"
        xyz = data.rgbd.xyz(name)
        measured = np.isfinite(xyz).all(axis=2)
        assert 0.97 < measured.mean() < 1
        inside = xyz[measured] - np.array(room.origin)
        assert (np.abs(inside) < [3.21, 2.61, 2.91]).all()
        center = [*room.scans[own], 1.45]
        np.testing.assert_allclose(data.rgbd.center(name) - room.origin, center, atol=1e-9)


def test_both_kinds_of_matlab_files(tmp_path: Path) -> None:
    points = np.random.default_rng(0).normal(size=(4, 5, 3))
    points[1, 2] = np.nan
    points[2, 3] = 0.0  # the scanner's own place: nothing was measured
    scipy.io.savemat(tmp_path / "v5.mat", {"XYZcut": points})
    with h5py.File(tmp_path / "v73.mat", "w") as file:
        file["XYZcut"] = points.transpose()  # as MATLAB's order of axes looks from HDF5
    expected = points.astype(np.float32)
    expected[2, 3] = np.nan
    for name in ("v5.mat", "v73.mat"):
        np.testing.assert_array_equal(read_xyz(tmp_path / name), expected)


def test_what_is_no_scan(tmp_path: Path) -> None:
    path = tmp_path / "bad.mat"
    for content in (b"", b"MATLAB 5.0 MAT-file, but cut"):
        path.write_bytes(content)
        with pytest.raises(ImageError, match=r"bad\.mat: no XYZcut can be read"):
            read_xyz(path)
    scipy.io.savemat(path, {"RGBcut": np.zeros((2, 2, 3))})
    with pytest.raises(ImageError, match="no XYZcut can be read"):
        read_xyz(path)
    scipy.io.savemat(path, {"XYZcut": np.zeros((2, 2))})
    with pytest.raises(ImageError, match=r"expected XYZcut of shape \(H, W, 3\)"):
        read_xyz(path)


def test_the_last_matrix_of_a_transformation_counts(tmp_path: Path) -> None:
    path = tmp_path / "DUC_trans_000.txt"
    before, after = np.eye(4), np.eye(4)
    after[:3, 3] = 1, 2, 3
    text = "\n".join(
        f"{name} general icp:\n" + "\n".join(" ".join(map(str, row)) for row in matrix) + "\n"
        for name, matrix in (("Before", before), ("After", after))
    )
    path.write_text(text)
    np.testing.assert_array_equal(read_transformation(path), after)
    for wrong in ("", "After general icp:\n1 0 0 0\n", text.replace("1.0", "1.5")):
        path.write_text(wrong)
        with pytest.raises(ImageError, match=r"DUC_trans_000\.txt"):
            read_transformation(path)


def test_what_is_missing_is_named_and_the_rest_goes_on(building: Path) -> None:
    first = "database/cutouts/DUC1/000/DUC_cutout_000_0_0.jpg"
    (building / f"{first}.mat").unlink()
    (building / "database/alignments/DUC2/transformations/DUC_trans_003.txt").unlink()
    data = load(building)
    assert len(data.rgbd.names) == 12 - 1 - 2
    assert "without it there is no 3D" in data.skipped[first]
    lost = [name for name in data.skipped if "/003/" in name]
    assert len(lost) == 2
    assert "DUC_trans_003.txt" in data.skipped[lost[0]]
    assert data.skipped["place DUC2/003"] == "all of its 2 cut-outs are skipped"


def test_one_floor(built: Path) -> None:
    data = load(built, floors=("DUC2",))
    assert {data.rgbd.place(name) for name in data.rgbd.names} == {"DUC2/002", "DUC2/003"}


def test_another_layout_is_told(building: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected InLoc's layout"):
        load(tmp_path / "nothing")
    for path in (building / "database" / "cutouts").rglob("*.mat"):
        path.unlink()
    with pytest.raises(DataError, match="0 usable cut-outs and 3 queries"):
        load(building)
