"""Pictures with matplotlib, and the live viewer."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import numpy as np
import pytest

import reconstruct
from reconstruct.datasets.synthetic import SyntheticDataset
from reconstruct.errors import UsageError
from reconstruct.report.view import serve
from reconstruct.storage.features import open_features


@pytest.fixture(autouse=True)
def no_window() -> None:
    pytest.importorskip("matplotlib").use("Agg")


def test_matches_end_where_their_keypoints_are(finished: Path, square: SyntheticDataset) -> None:
    names = square.names[:2]
    features = [open_features(finished).load(name) for name in names]
    rows = np.array([[0, 1], [2, 3]], np.uint32)
    photos = [square.images / name for name in names]
    axes = reconstruct.plot_matches(*photos, *features, rows, values=np.array([0.1, 2.0]))
    (lines,) = axes.collections
    (left, right) = lines.get_segments()[1]
    assert left.tolist() == features[0].keypoints[2].tolist()
    assert (right - [320, 0]).tolist() == features[1].keypoints[3].tolist()
    axes.figure.canvas.draw()
    with pytest.raises(UsageError, match=r"expected an array \(M, 2\)"):
        reconstruct.plot_matches(*photos, *features, rows[:, 0])


def test_keypoints_and_model(finished: Path, square: SyntheticDataset) -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    axes = reconstruct.plot_keypoints(image, np.array([[0.5, 0.5], [29.5, 19.5]]))
    assert axes.collections[0].get_offsets().tolist() == [[0.5, 0.5], [29.5, 19.5]]
    assert axes.images[0].get_extent() == [0, 30, 20, 0], "COLMAP pixels"
    axes = reconstruct.plot_model(finished)
    axes.figure.canvas.draw()
    assert len(axes.collections[-1].get_offsets()) == len(square.names)


@pytest.mark.filterwarnings("ignore")
def test_the_live_viewer_answers(finished: Path, tmp_path: Path) -> None:
    pytest.importorskip("viser")
    server = serve(finished, port=0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.get_port()}", timeout=20) as page:
            assert page.status == 200
    finally:
        server.stop()
    with pytest.raises(UsageError, match="no COLMAP model"):
        serve(tmp_path)
