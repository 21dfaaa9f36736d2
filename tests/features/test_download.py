"""Downloads: atomic, checked, from mirrors, and helpful where there is no network."""

from __future__ import annotations

import hashlib
import http.server
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fixtures import blob_weights

from reconstruct.errors import WeightsError
from reconstruct.features import published
from reconstruct.features.download import cached_download, git_object
from reconstruct.features.weights import CONVOLUTIONS, DOWNLOADS, load_weights

CONTENT = b"weights" * 1000
KNOWN = hashlib.sha256(CONTENT).hexdigest()
PAGES = {"/empty": b"", "/login": b"<html>log in first</html>"}


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/absent"):
            self.send_error(404)
            return
        self.send_response(200)
        if self.path == "/chunked":  # and cut off between its chunks
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"4\r\nweig\r\n")
            return
        if self.path in PAGES:
            content = PAGES[self.path]
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:100] if self.path == "/cut" else CONTENT)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def test_a_file_is_fetched_once_and_checked_after(server: str, tmp_path: Path) -> None:
    path = cached_download("w.pth", [f"{server}/w.pth"], KNOWN, tmp_path / "new" / "folder")
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["w.pth"]
    assert cached_download("w.pth", [], KNOWN, path.parent) == path  # no address needed any more
    path.write_bytes(CONTENT + b"!")
    with pytest.raises(WeightsError, match=f"SHA-256.* has {KNOWN}; delete it"):
        cached_download("w.pth", [f"{server}/w.pth"], KNOWN, path.parent)


def test_mirrors_are_tried_in_order(server: str, tmp_path: Path) -> None:
    bad = ("absent", "cut", "chunked", "empty", "login")
    urls = [f"{server}/{name}" for name in bad]
    urls += ["file:///etc/hostname", "ftp://x/y", "http://[", "no address", f"{server}/good"]
    assert cached_download("w.pth", urls, KNOWN, tmp_path).read_bytes() == CONTENT
    assert [p.name for p in tmp_path.iterdir()] == ["w.pth"]


def test_a_git_object_is_known_as_well(server: str, tmp_path: Path) -> None:
    # echo 'test content' | git hash-object --stdin (Pro Git, 10.2)
    (tmp_path / "text").write_bytes(b"test content\n")
    assert git_object(tmp_path / "text") == "d670460b4b4aece5915caf5c68d12f560a9fe3e4"
    if shutil.which("git"):
        (tmp_path / "content").write_bytes(CONTENT)
        command = ["git", "hash-object", "--no-filters", str(tmp_path / "content")]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert told.strip() == git_object(tmp_path / "content")
    known = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()
    urls = [f"{server}/login", f"{server}/good"]
    path = cached_download("w.pth", urls, known, tmp_path / "cache")
    assert path.read_bytes() == CONTENT
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(WeightsError, match=f"its git object is .* has {known}"):
        cached_download("w.pth", [], known, path.parent)


def test_an_incomplete_download_leaves_nothing(server: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as error:
        cached_download("w.pth", [f"{server}/cut", f"{server}/login"], KNOWN, tmp_path)
    assert list(tmp_path.iterdir()) == []
    for part in (f"{server}/cut", f"{server}/login", str(tmp_path / "w.pth"), KNOWN):
        assert part in str(error.value)


def test_every_file_that_is_fetched_is_known() -> None:
    assert set(DOWNLOADS.values()) <= set(published.FILES)
    for file in published.FILES.values():
        assert re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", file.known)
        assert file.urls
        assert all(url.startswith("https://") for url in file.urls)


def test_named_weights_come_from_a_mirror_into_the_cache(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, mirror = blob_weights(), tmp_path / "mirror"
    mirror.mkdir()
    entries = {
        f"dense_feature_extraction.model.{index}.{kind}": torch.from_numpy(
            weights.tensors[f"{name}.{kind}"]
        )
        for name, (_, _, index) in CONVOLUTIONS.items()
        for kind in ("weight", "bias")
    }
    torch.save({"model": entries}, mirror / "d2_tf.pth")
    monkeypatch.setenv("RECONSTRUCT_CACHE", str(tmp_path / "cache"))
    for name, file in published.FILES.items():
        changed = replace(file, known=git_object(mirror / "d2_tf.pth"), urls=(f"{server}/absent",))
        monkeypatch.setitem(published.FILES, name, changed)
    monkeypatch.setitem(PAGES, "/mirror/d2_tf.pth", (mirror / "d2_tf.pth").read_bytes())
    read = load_weights("d2_tf", mirrors=[f"{server}/login", f"{server}/mirror"])
    assert read.content_hash() == weights.content_hash()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["d2_tf.pth"]
    with pytest.raises(WeightsError, match=r"d2_ots\.pth: not in the cache"):
        load_weights("d2_ots")
