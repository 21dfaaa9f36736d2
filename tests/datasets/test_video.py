"""Frames of clips: sharp ones, none twice."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from conftest import CHAIN, Command
from fixtures import textured

from reconstruct import colmap
from reconstruct.datasets.synthetic import SyntheticDataset, write_dataset
from reconstruct.datasets.video import Candidate, VideoConfig, choose, sharpness
from reconstruct.errors import DataError, UsageError
from reconstruct.images import read_image
from reconstruct.pipeline.config import PipelineConfig, load_config
from reconstruct.types import ImageArray

av = pytest.importorskip("av", reason="needs the extra `video`")
RATE = 10


def write_clip(path: Path, pictures: list[ImageArray], rate: int = RATE) -> Path:
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = 8_000_000
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def pan(count: int, size: tuple[int, int] = (160, 120), step: int = 6) -> list[ImageArray]:
    """A camera that moves over a texture by ``step`` pixels a frame."""
    wide = textured(size[1], size[0] + step * count)
    return [np.ascontiguousarray(wide[:, step * i : step * i + size[0]]) for i in range(count)]


def config(path: Path, **settings: object) -> VideoConfig:
    return VideoConfig.model_validate({"format": "video", "path": str(path), **settings})


def numbers(names: tuple[str, ...]) -> list[int]:
    return [int(Path(name).stem.rpartition("_")[2]) for name in names]


def blurred(picture: ImageArray) -> ImageArray:
    return np.asarray(cv2.blur(picture, (25, 3)), np.uint8)


def test_of_each_stretch_the_sharpest_frame(tmp_path: Path) -> None:
    pictures = pan(40)
    sharp = {3, 8, 11, 17, 24, 28, 30, 38}  # one in each five frames
    pictures = [p if i in sharp else blurred(p) for i, p in enumerate(pictures)]
    path = write_clip(tmp_path / "clip.mp4", pictures)
    dataset = config(path, frames_per_second=2).load(tmp_path / "scratch")
    assert set(numbers(dataset.names)) == sharp
    assert dataset.names[0] == "clip_000003.jpg"
    assert list(dataset.names) == sorted(dataset.names)
    found = read_image(dataset.path("clip_000017.jpg")).astype(int)
    assert np.abs(found - pictures[17].astype(int)).mean() < 12


def test_blurred_and_frozen_stretches_have_no_frame(tmp_path: Path) -> None:
    moving = pan(100)
    pictures = [*moving[:30], *map(blurred, moving[30:50]), *moving[50:60]]
    pictures += [moving[60]] * 25 + moving[61:]
    path = write_clip(tmp_path / "clip.mp4", pictures)
    dataset = config(path, frames_per_second=5).load(tmp_path / "scratch")
    taken = numbers(dataset.names)
    assert not [n for n in taken if 30 <= n < 50]
    assert len([n for n in taken if 60 <= n < 85]) == 1
    assert 38 <= len(taken) <= 42, "one each two frames of the rest"


def test_a_rerun_takes_no_frame_again(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", pan(20))
    scratch = tmp_path / "scratch"
    first = config(path).load(scratch)
    before = {name: first.path(name).stat().st_mtime_ns for name in first.names}
    moved = Path(shutil.copy(path, tmp_path / "moved.mp4"))
    again = config(moved).load(scratch)
    assert {name: again.path(name).stat().st_mtime_ns for name in again.names} == before
    assert len(config(path, frames_per_second=5).load(scratch).names) > len(first.names)
    assert sorted(p.name for p in first.root.iterdir()) != sorted(first.names)
    back = config(path).load(scratch)
    assert back.names == first.names
    assert sorted(p.name for p in back.root.iterdir()) == list(back.names), "no others are left"
    back.path(back.names[0]).unlink()
    assert config(path).load(scratch).path(back.names[0]).is_file()


def test_what_is_no_clip_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"none\.mp4: no such video \(dataset\.path\)"):
        config(tmp_path / "none.mp4").load(tmp_path / "scratch")
    (tmp_path / "bad.mp4").write_bytes(b"no clip at all")
    with pytest.raises(DataError, match=r"bad\.mp4: no picture can be read"):
        config(tmp_path / "bad.mp4").load(tmp_path / "scratch")
    assert not (tmp_path / "scratch" / "images").exists()
    path = write_clip(tmp_path / "clip.mp4", pan(4))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UsageError, match=r"pip install 'reconstruct\[video\]'"):
        config(path).load(tmp_path / "scratch")


def test_a_clip_that_is_cut_off_counts_as_far_as_it_goes(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"  # its index stands at the end, and is not needed
    content = write_clip(path, pan(60)).read_bytes()
    path.write_bytes(content[: 2 * len(content) // 3])
    dataset = config(path, frames_per_second=5).load(tmp_path / "scratch")
    assert 10 < len(dataset.names) < 30


def candidate(name: str, value: float, level: float) -> Candidate:
    return Candidate(name, value, np.full((2, 2), level, np.float32))


def test_the_choice_by_hand() -> None:
    frames = [candidate("a", 10, 0), candidate("b", 2.9, 9), candidate("c", 10, 0.9)]
    frames += [candidate("d", 10, 1.8), candidate("e", 3.1, 9)]
    assert choose(frames, 0.3, 1.0) == (["a", "d", "e"], 1, 1)
    assert choose(frames, 0.0, 0.0) == (list("abcde"), 0, 0)
    assert choose([], 0.3, 1.0) == ([], 0, 0)


def test_blur_lowers_sharpness() -> None:
    picture = textured(100, 100)
    assert sharpness(blurred(picture)) < 0.3 * sharpness(picture)
    assert sharpness(np.zeros((5, 5, 3), np.uint8)) == 0


def test_frames_are_paired_in_their_order_with_loops_by_default(tmp_path: Path) -> None:
    settings = {k: v for k, v in CHAIN.items() if k != "pair"}
    settings["dataset"] = {"format": "video", "path": "clip.mp4"}
    path = tmp_path / "clip.yaml"
    path.write_text(yaml.safe_dump(settings))
    found = load_config(path)
    assert isinstance(found, PipelineConfig)
    assert found.pair is not None
    assert (found.pair.method, found.pair.overlap, found.pair.loop_every) == ("sequential", 10, 10)
    assert found.dataset.camera_sharing == "single"


def test_a_rendered_clip_becomes_a_model(command: Command, tmp_path: Path) -> None:
    square: SyntheticDataset = write_dataset(
        tmp_path / "square", views=14, size=(320, 240), arc_deg=90.0
    )
    still = [read_image(square.images / name) for name in sorted(square.names)]
    pictures = [*still[:5], *[still[5]] * 4, *map(blurred, still[6:8]), *still[6:]]
    clip = write_clip(tmp_path / "clip.mp4", pictures, rate=2)
    settings = CHAIN | {"dataset": {"format": "video", "path": "another.mp4"}}
    settings["pair"] = {"method": "sequential", "overlap": 4}
    path = tmp_path / "clip.yaml"
    path.write_text(yaml.safe_dump(settings))
    outcome = command("run", path, "--images", clip, "--output", tmp_path / "out")
    assert outcome.status == 0
    assert "left out 2 stretches that are blurred and 3 in which nothing moved" in outcome.err
    model = colmap.read_model(tmp_path / "out" / "sparse")
    assert model.num_reg_images() == 14
    assert model.num_cameras() == 1
