"""Hashes of large files are remembered, and never outlive the content."""

from __future__ import annotations

import os
from pathlib import Path

from reconstruct.fingerprints import file_hash
from reconstruct.storage.hashes import ContentHashes


def test_a_file_is_read_again_only_if_it_changed(tmp_path: Path) -> None:
    file, index = tmp_path / "scan.mat", tmp_path / "hashes.json"
    file.write_bytes(b"points")
    first = ContentHashes(index)
    assert first[file] == file_hash(file)
    assert first[tmp_path / "absent"] is None
    first.save()
    state = file.stat()
    file.write_bytes(b"others")  # same size; with the same time it would pass for the same file
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert ContentHashes(index)[file] == first[file]
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    assert ContentHashes(index)[file] == file_hash(file)


def test_an_unreadable_index_is_made_anew(tmp_path: Path) -> None:
    file, index = tmp_path / "scan.mat", tmp_path / "hashes.json"
    file.write_bytes(b"points")
    index.write_text("[")
    hashes = ContentHashes(index)
    assert hashes[file] == file_hash(file)
    hashes.save()
    assert file_hash(file) in index.read_text()
