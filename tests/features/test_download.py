"""Downloads: atomic, checked, from mirrors, and helpful where there is no network."""

from __future__ import annotations

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


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/absent":
            self.send_error(404)
            return
        self.send_response(200)
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
    urls = [f"{server}/absent", f"{server}/cut", f"{server}/good"]
    assert cached_download("w.pth", urls, tmp_path).read_bytes() == CONTENT


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    monkeypatch.setattr(weights_module, "RELEASE_URL", "file:///absent/")
    read = load_weights("d2_tf", mirrors=[mirror.as_uri()])
    assert read.content_hash() == weights.content_hash()
    assert (tmp_path / "cache" / "d2_tf.pth.sha256").is_file()
    with pytest.raises(WeightsError, match=r"file:///absent/d2_ots\.pth"):
        load_weights("d2_ots")
