"""MATLAB files: what SciPy wrote, and what would end SciPy."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from scipy.sparse import csc_array

from reconstruct.storage.matlab import read_matlab

POINTS = np.random.default_rng(0).random((4, 5, 3))


def nested(depth: int) -> np.ndarray:
    cell = np.empty(2, object)
    cell[:] = nested(depth - 1) if depth else np.ones((2, 1)), np.int16([[3]])
    return cell


@pytest.mark.parametrize("compressed", [False, True])
def test_variables_that_scipy_wrote(compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    layer = np.array([(1.0, "conv"), (2.0, "relu")], [("size", object), ("type", object)])
    others = {
        "RGBcut": np.arange(60, dtype=np.uint8).reshape(4, 5, 3),
        "net": {"layers": layer, "meta": {"mean": np.float32([[1, 2, 3]])}, "none": []},
        "cells": nested(3),
    }
    scipy.io.savemat(path, others | {"XYZcut": POINTS}, do_compression=compressed)
    points = read_matlab(path, "XYZcut")
    np.testing.assert_array_equal(points, POINTS)
    assert points.flags.writeable
    np.testing.assert_array_equal(read_matlab(path, "RGBcut"), others["RGBcut"])
    net = read_matlab(path, "net")
    assert list(net) == ["layers", "meta", "none"]
    assert [found["size"].item() for found in net["layers"]] == [1.0, 2.0]
    assert net["meta"]["mean"].dtype == np.float32
    assert net["meta"]["mean"].tolist() == [[1, 2, 3]]
    assert np.size(net["none"]) == 0
    cells = read_matlab(path, "cells")
    for _ in range(3):
        assert cells[1] == 3
        cells = cells[0]
    assert cells[0].tolist() == [[1], [1]]
    with pytest.raises(ValueError, match=r"no readable variable 'absent'.*not there"):
        read_matlab(path, "absent")


def test_other_classes_beside_what_is_read(tmp_path: Path) -> None:
    """An object is read as a struct; what is no matrix of numbers is passed over."""
    path = tmp_path / "a.mat"
    values = np.array([(np.ones((1, 2)), 7)], [("size", object), ("more", object)])
    layer = scipy.io.matlab.MatlabObject(values, "layer")
    scipy.io.savemat(path, {"net": {"text": "vgg", "sparse": csc_array(np.eye(2)), "layer": layer}})
    net = read_matlab(path, "net")
    assert net["text"] is net["sparse"] is None
    assert net["layer"]["size"].tolist() == [[1, 1]]
    assert net["layer"]["more"].item() == 7


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", [0, 8, 14, 15, 19, 0x8009])
def test_numbers_of_unknown_types(kind: int, compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"XYZcut": POINTS})
    content = path.read_bytes()
    data = content.index(struct.pack("<II", 9, POINTS.nbytes))  # doubles
    damaged = content[:data] + struct.pack("<I", kind) + content[data + 4 :]
    if compressed:
        deflated = zlib.compress(damaged[128:])
        damaged = damaged[:128] + struct.pack("<II", 15, len(deflated)) + deflated
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="no readable variable 'XYZcut'"):
        read_matlab(path, "XYZcut")


def test_cut_off_anywhere(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.mat", tmp_path / "a.mat"
    scipy.io.savemat(whole, {"XYZcut": POINTS}, do_compression=True)
    content = whole.read_bytes()
    for size in range(0, len(content) - 1, 7):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="no readable variable"):
            read_matlab(path, "XYZcut")


def test_matrices_in_matrices_without_end(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"net": nested(100)})
    with pytest.raises(ValueError, match="without end"):
        read_matlab(path, "net")
