from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

import reconstruct
from reconstruct.datasets.synthetic import SyntheticDataset
from reconstruct.features.compaction import read_basis, write_basis
from reconstruct.storage.features import open_features

SETTINGS: dict[str, Any] = {
    "extract.compact": {"dim": 32, "encoding": "uint8"},
    "verify": None,
    "map": None,
}


def run(chain: Path, photos: Path, output: Path) -> dict[str, dict[str, object]]:
    run = reconstruct.run(chain, photos, output, overrides=SETTINGS, verbosity=-1)
    return run.summary.figures


def test_the_basis_is_learned_once_and_kept_for_photos_that_come_later(
    chain: Path, photos: Path, square: SyntheticDataset, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    first = run(chain, photos, output)
    assert first["extract"]["extracted_now"] == 4
    stored = open_features(output).load(square.names[0]).descriptors
    assert stored.dtype == np.uint8
    assert stored.shape[1] == 32
    basis = read_basis(output / "features" / "basis.safetensors")
    assert basis.shape == (128, 32)
    shutil.copy(square.images / square.names[4], photos)
    second = run(chain, photos, output)
    assert second["extract"]["extracted_now"] == 1
    assert second["match"]["matched_now"] == 4
    assert np.array_equal(read_basis(output / "features" / "basis.safetensors"), basis)


def test_a_lost_basis_is_learned_again_the_same_and_another_one_makes_features_stale(
    chain: Path, photos: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    run(chain, photos, output)
    path = output / "features" / "basis.safetensors"
    other = tmp_path / "other.safetensors"
    write_basis(other, -read_basis(path))
    path.unlink()
    assert run(chain, photos, output)["extract"]["extracted_now"] == 0
    settings = SETTINGS | {"extract.compact": {**SETTINGS["extract.compact"], "basis": str(other)}}
    again = reconstruct.run(chain, photos, output, overrides=settings, verbosity=-1)
    assert again.summary.figures["extract"]["extracted_now"] == 4


def test_each_kind_of_together_has_a_basis_of_its_own(
    chain: Path, photos: Path, square: SyntheticDataset, tmp_path: Path
) -> None:
    """SIFT's 128 columns stay as they are beside D2-Net's, and matches are found as before."""
    settings = {
        **SETTINGS,
        "extract.local": {"name": "together", "weights": "vgg16", "max_edge": 256},
        "extract.compact": {"dim": 128, "encoding": "uint8"},
    }
    output = tmp_path / "out"
    run = reconstruct.run(chain, photos, output, overrides=settings, verbosity=-1)
    basis = read_basis(output / "features" / "basis.safetensors")
    assert basis.shape == (512 + 128, 128 + 128)
    np.testing.assert_array_equal(basis[512:], np.eye(256, dtype=np.float32)[128:])
    assert not basis[:512, 128:].any()
    np.testing.assert_allclose(basis.T @ basis, np.eye(256), atol=1e-5)
    found = open_features(output).load(square.names[0])
    assert found.kinds is not None
    assert (found.descriptors[found.kinds == 0, 128:] == 128).all(), "zero, as uint8"
    assert (found.descriptors[found.kinds == 1, :128] == 128).all()
    plain = {**settings, "extract.compact": {}}
    whole = reconstruct.run(chain, photos, tmp_path / "whole", overrides=plain, verbosity=-1)
    compact, full = (r.summary.figures["match"]["mean_matches"] for r in (run, whole))
    assert 0.9 * full < compact < 1.1 * full
