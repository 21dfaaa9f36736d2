"""Downloads: atomic, checked, from mirrors, and helpful where there is no network."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fixtures import blob_weights

from reconstruct.errors import WeightsError
from reconstruct.features import weights as weights_module
from reconstruct.features.download import cached_download
from reconstruct.features.weights import CONVOLUTIONS, load_weights

CONTENT = b"weights" * 1000
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
    path = cached_download("w.pth", [f"{server}/w.pth"], tmp_path / "new" / "folder")
    assert path.read_bytes() == CONTENT
    assert sorted(p.name for p in path.parent.iterdir()) == ["w.pth", "w.pth.sha256"]
    assert cached_download("w.pth", [], path.parent) == path  # no address needed any more
    path.write_bytes(CONTENT + b"!")
    with pytest.raises(WeightsError, match=r"SHA-256.*delete it"):
        cached_download("w.pth", [f"{server}/w.pth"], path.parent)


def test_mirrors_are_tried_in_order(server: str, tmp_path: Path) -> None:
    bad = ("absent", "cut", "chunked", "empty", "login")
    urls = [f"{server}/{name}" for name in bad]
    urls += ["file:///etc/hostname", "ftp://x/y", "http://[", "no address", f"{server}/good"]

    def accept(path: Path) -> None:
        if path.read_bytes().startswith(b"<html>"):
            raise WeightsError("a page")

    assert cached_download("w.pth", urls, tmp_path, accept=accept).read_bytes() == CONTENT
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.pth", "w.pth.sha256"]


def test_a_hash_that_was_put_there_before_is_asked_of_every_mirror(
    server: str, tmp_path: Path
) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    (tmp_path / "w.pth.sha256").write_text(f"{digest}  w.pth\n")
    with pytest.raises(WeightsError, match=f"asks for {digest}"):
        cached_download("w.pth", [f"{server}/login"], tmp_path)
    urls = [f"{server}/login", f"{server}/good"]
    assert cached_download("w.pth", urls, tmp_path).read_bytes() == CONTENT


def test_a_hash_that_is_known_is_asked_of_mirrors_and_of_the_cache(
    server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = hashlib.sha256(CONTENT).hexdigest()
    urls = [f"{server}/login", f"{server}/good"]
    found = cached_download("w.pth", urls, tmp_path, sha256=known)
    assert found.read_bytes() == CONTENT
    assert not caplog.messages
    with pytest.raises(WeightsError, match=f"but the file of that name has {'0' * 64}"):
        cached_download("w.pth", [], tmp_path, sha256="0" * 64)
    with pytest.raises(WeightsError, match=f"this program asks for {'0' * 64}"):
        cached_download("v.pth", urls, tmp_path, sha256="0" * 64)


def test_a_download_without_a_known_hash_is_said_to_be(
    server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cached_download("w.pth", [f"{server}/good"], tmp_path)
    (told,) = caplog.messages
    assert hashlib.sha256(CONTENT).hexdigest() in told
    assert "w.pth.sha256" in told


def test_an_incomplete_download_leaves_nothing(server: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as error:
        cached_download("w.pth", [f"{server}/cut", "file:///absent/w.pth"], tmp_path)
    assert list(tmp_path.iterdir()) == []
    for part in (f"{server}/cut", "file:///absent/w.pth", str(tmp_path / "w.pth"), "mirrors"):
        assert part in str(error.value)


def test_a_file_put_there_by_hand_is_taken_and_its_hash_recorded(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"by hand")
    cached_download("w.pth", [], tmp_path)
    (tmp_path / "w.pth").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="was recorded"):
        cached_download("w.pth", [], tmp_path)


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
    monkeypatch.setattr(weights_module, "RELEASE_URL", f"{server}/absent/")
    monkeypatch.setitem(PAGES, "/mirror/d2_tf.pth", (mirror / "d2_tf.pth").read_bytes())
    read = load_weights("d2_tf", mirrors=[f"{server}/login", f"{server}/mirror"])
    assert read.content_hash() == weights.content_hash()
    assert (tmp_path / "cache" / "d2_tf.pth.sha256").is_file()
    with pytest.raises(WeightsError, match=r"absent/d2_ots\.pth"):
        load_weights("d2_ots")
