"""Photos and folders that are not as they should be, each through the command line."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import yaml
from PIL import Image

from reconstruct import colmap
from reconstruct.atomic import TEMPORARY
from reconstruct.datasets.synthetic import SyntheticDataset
from reconstruct.images import read_image
from reconstruct.progress import Reporter, logging_to
from reconstruct.storage.features import open_features
from reconstruct.workspace import Workspace

Command = Callable[..., Any]

D2NET = "extract.local={name: d2net, max_edge: 320}"


@pytest.fixture
def run(command: Command, chain: Path, photos: Path, tmp_path: Path) -> Command:
    """Runs the chain over ``photos`` into ``tmp_path / "out"``."""

    def call(*arguments: Any, images: Path = photos, output: Path = tmp_path / "out") -> Any:
        return command("run", chain, "--images", images, "--output", output, *arguments)

    return call


def error_lines(outcome: Any) -> list[str]:
    return [line for line in outcome.err.splitlines() if line.startswith("error: ")]


def registered(output: Path) -> set[str]:
    return set(colmap.model_poses(colmap.read_model(output / "sparse")))


def test_an_empty_and_a_missing_folder(run: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = run(images=tmp_path / "empty")
    assert found.status == 1
    assert "empty: no images in this folder" in error_lines(found)[0]
    found = run(images=tmp_path / "absent")
    assert found.status == 2
    assert "no such folder; give the folder of photos with --images" in error_lines(found)[0]


def test_unreadable_photos_are_named_and_left_out(
    run: Command, photos: Path, tmp_path: Path
) -> None:
    whole = (photos / "day-00.jpg").read_bytes()
    (photos / "cut [off].jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "text.jpg").write_text("not a photo")
    (photos / "dangling.jpg").symlink_to(photos / "nowhere.jpg")
    for extracted_now in (4, 0):
        found = run()
        assert found.status == 3
        for name, why in [
            ("cut [off].jpg", "not a readable image"),
            ("text.jpg", "not a readable image"),
            ("dangling.jpg", "no such file"),
        ]:
            assert f"skipped {name}: {why}" in found.err
            assert name in found.out, "the summary names it too"
        assert "3 input(s) skipped, see the summary: exit status 3" in found.err
        assert len(registered(tmp_path / "out")) == 4
        assert f"extracted now {extracted_now}" in " ".join(found.out.split())


def test_what_is_no_photo_is_named_in_summary_and_log(
    run: Command, photos: Path, tmp_path: Path
) -> None:
    Image.open(photos / "day-00.jpg").save(photos / "web.jpg", "WEBP")
    Image.open(photos / "day-00.jpg").save(photos / "icon.png", "ICO")
    os.mkfifo(photos / "pipe.jpg")
    (photos / "line\nbreak.jpg").write_bytes(b"")
    (photos / "loop").symlink_to(photos)
    found = run()
    assert found.status == 3, found.err
    assert "4 input(s) skipped" in found.err
    assert len(registered(tmp_path / "out")) == 4
    log = (tmp_path / "out" / "log.txt").read_text(encoding="utf-8")
    for told in (
        "web.jpg: its content is WebP",
        "icon.png: its content is ICO",
        "pipe.jpg: not a regular file",
        "its name holds a control character",
    ):
        assert told in log


def test_no_photo_can_be_read(run: Command, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "text.jpg").write_text("not a photo")
    found = run(images=tmp_path / "bad")
    assert found.status == 1
    assert error_lines(found) == [f"error: {tmp_path / 'bad'}: none of the 1 images can be read"]


def test_photos_of_every_kind_pass_the_whole_chain(
    run: Command, square: SyntheticDataset, tmp_path: Path
) -> None:
    folder = tmp_path / "kinds"
    folder.mkdir()
    rgb = [read_image(square.images / name) for name in square.names]
    Image.fromarray(rgb[0]).convert("L").save(folder / "grey.jpg", quality=95)
    deep = cv2.cvtColor(rgb[1], cv2.COLOR_RGB2GRAY).astype(np.uint16) << 8
    Image.fromarray(deep).save(folder / "grey16.png")
    cv2.imwrite(str(folder / "rgb16.png"), rgb[2][..., ::-1].astype(np.uint16) << 8)
    Image.fromarray(np.dstack([rgb[3], rgb[3][..., 0]])).save(folder / "rgba.png")
    Image.fromarray(rgb[4]).convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    Image.fromarray(rgb[5]).quantize(255).save(folder / "palette.png")
    found = run(images=folder)
    assert found.status == 0, found.err
    model = colmap.read_model(tmp_path / "out" / "sparse")
    assert len(colmap.model_poses(model)) == 6
    colors = np.array([point.color for point in model.points3D.values()])
    assert (colors.max(axis=1) > 0).mean() > 0.99, "COLMAP reads their colours too"


@pytest.mark.parametrize("extractor", ["extract.local={name: sift}", D2NET])
def test_tiny_and_featureless_photos_pass_every_stage(
    run: Command, photos: Path, square: SyntheticDataset, tmp_path: Path, extractor: str
) -> None:
    Image.new("RGB", (1, 1), (9, 9, 9)).save(photos / "tiny.png")
    Image.new("RGB", (3, 240), (9, 9, 9)).save(photos / "sliver.png")
    Image.new("RGB", (320, 240), (90, 90, 90)).save(photos / "flat.png")
    cameras = f"dataset.cameras={json.dumps(str(square.reference))}"
    found = run("--set", extractor, "--set", cameras, "--set", "match.ratio=null")
    assert found.status == 0, found.err
    features = open_features(tmp_path / "out")
    assert len(features.load("tiny.png")) == len(features.load("sliver.png")) == 0
    good = {path.name for path in photos.glob("*.jpg")}
    assert registered(tmp_path / "out") == good
    assert "not registered" in found.out


def test_one_photo_only(run: Command, photos: Path) -> None:
    for path in sorted(photos.iterdir())[1:]:
        path.unlink()
    found = run()
    assert found.status == 1
    assert "1 readable image(s) and no pair to match" in error_lines(found)[0]


def test_names_of_all_kinds(run: Command, photos: Path, tmp_path: Path) -> None:
    names = ["a/b.jpg", "a-b.jpg", 'Grüße 写真/the "best" one\'s.jpg', "#1 [x].jpg"]
    for path, name in zip(sorted(photos.iterdir()), names, strict=True):
        (photos / name).parent.mkdir(exist_ok=True)
        path.rename(photos / name)
    assert run().status == 0
    assert registered(tmp_path / "out") == set(names)
    assert len(colmap.verified_matches(tmp_path / "out" / "database.db")) == 6
    again = run()
    assert again.status == 0
    assert "extracted now 0" in " ".join(again.out.split())
    assert "matched now 0" in " ".join(again.out.split())


def test_photos_without_anything_in_common(run: Command, tmp_path: Path) -> None:
    (tmp_path / "noise").mkdir()
    rng = np.random.default_rng(0)
    for i in range(2):
        pixels = rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "noise" / f"{i}.png")
    found = run(images=tmp_path / "noise")
    assert found.status == 1
    (line,) = error_lines(found)
    assert "none of 1 pairs has 15 matches that agree with one two-view geometry" in line


WRONG_USE = [
    (["--set", "extract.local={name: d2net, weights: vgg19}"], "extract.local.weights: unknown"),
    (["--set", "mach.ratio=1"], "mach: unknown key (did you mean 'match'?)"),
    (["--set", "match"], "expected key=value"),
    (["--device", "cuda:9"], "--device cuda:9: torch sees"),
    (["--device", "gpu"], "--device gpu: expected auto, cpu, cuda, cuda:N or mps"),
    (["--only", "mapp"], "no stage 'mapp' in this pipeline (did you mean 'map'?)"),
    (["--only", "match"], "match: what it reads of stage extract is missing or stale"),
    (["--only", "verify"], "verify: what it reads of stage match is missing or stale"),
    (["--only", "map"], "map: what it reads of stage database is missing or stale"),
    (["--set", "dataset.masks=nowhere"], "nowhere: no such folder (dataset.masks)"),
    (["--set", "pair={method: list, path: nowhere.txt}"], "nowhere.txt: no such"),
    (["--set", "pair={method: poses, reference: nowhere}"], "nowhere: no COLMAP model here"),
    (["--set", "map={method: triangulate, reference: nowhere}"], "nowhere: no COLMAP model here"),
    (["--set", "dataset.cameras=nowhere"], "nowhere: no COLMAP model here"),
    (["--set", "evaluate.reference=nowhere"], "nowhere: no COLMAP model here"),
    (["--set", "map.start=nowhere"], "nowhere: no COLMAP model here"),
    (["--set", "evaluate={}"], "evaluate.reference: required"),
    (["--set", "map.options={no_such: 1}"], "has no option 'no_such'"),
    (["--set", "map.threads=-2147483648"], "map.threads: expected greater than or equal to -1"),
    (["--cluster", "local:99999999"], "cluster.workers: expected less than or equal to 1024"),
    (["--set", "map.options={min_model_size: -1}"], "COLMAP refuses these values"),
    (["--set", "map.options={min_model_size: 1000000000000}"], "does not take"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG_USE, ids=[a[1] for a, _ in WRONG_USE])
def test_wrong_use_is_told_before_any_work(
    run: Command, tmp_path: Path, arguments: list[str], message: str
) -> None:
    found = run(*arguments)
    assert found.status == 2
    assert message in error_lines(found)[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "setting", ["dataset.cameras={}", "map={{method: triangulate, reference: {}}}"]
)
def test_impossible_intrinsics_are_told_before_any_work(
    run: Command, tmp_path: Path, setting: str
) -> None:
    (tmp_path / "cameras.txt").write_text("1 PINHOLE 320 240 -300 300 160 120\n")
    (tmp_path / "images.txt").write_text("")
    found = run("--set", setting.format(tmp_path))
    assert found.status == 2
    assert "camera 1: its focal length is not above 0" in error_lines(found)[0]
    assert not (tmp_path / "out").exists()


def test_a_folder_that_was_there_stays_after_wrong_use(run: Command, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert run("--set", "map.start=nowhere").status == 2
    assert (tmp_path / "out").is_dir()


def test_an_output_folder_in_use(run: Command, tmp_path: Path) -> None:
    with Workspace(tmp_path / "out").lock():
        found = run()
    assert found.status == 2
    assert "out: in use by another run (process" in error_lines(found)[0]
    (tmp_path / "file").write_text("")
    found = run(output=tmp_path / "file")
    assert found.status == 2
    assert "cannot be (part of) an output folder" in error_lines(found)[0]


def test_a_pipeline_file_that_is_none(command: Command, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: [")
    for path in (tmp_path / "bad.yaml", tmp_path / "absent.yaml"):
        found = command("run", path)
        assert found.status == 2
        assert str(path) in error_lines(found)[0]


def test_evaluate_and_export_without_a_model(
    command: Command, square: SyntheticDataset, finished: Path, tmp_path: Path
) -> None:
    for arguments in (
        ("evaluate", tmp_path, "--reference", square.reference),
        ("evaluate", finished, "--reference", tmp_path),
        ("export", tmp_path, "--format", "ply"),
    ):
        found = command(*arguments)
        assert found.status == 2
        assert len(error_lines(found)) == 1


def test_a_path_that_cannot_be_used_is_no_matter_of_the_disk(run: Command, tmp_path: Path) -> None:
    (tmp_path / "out" / ".lock").mkdir(parents=True)
    for output in (tmp_path / "out", tmp_path / ("x" * 300)):
        found = run(output=output)
        assert found.status == 2
        (line,) = error_lines(found)
        assert "the disk" not in line


def test_a_name_with_brackets_and_backslashes_is_shown_as_it_is(run: Command, photos: Path) -> None:
    names = [r"a\[b].jpg", "[red].jpg", r"c[d]\.jpg"]
    for name in names:
        (photos / name).write_text("not a photo")
    found = run()
    assert found.status == 3
    for name in names:
        assert name in found.out


def in_a_process(
    program: str, *arguments: object, timeout: float = 100
) -> subprocess.CompletedProcess[str]:
    """What a Python program of its own came to."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)


STOPPED = """
import hashlib, os, signal, sys, threading, time
from reconstruct import stopping
from reconstruct.__main__ import main
from reconstruct.pipeline import run

def compute():
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes in C, as COLMAP's mapping

def wait(*arguments, **settings):
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    compute() if len(sys.argv) > 1 else time.sleep(60)

run.run = wait
stopping.GRACE_S = 1.0
sys.exit(main(["run", "sfm"]))
"""


@pytest.mark.parametrize("arguments", [[], ["in C"]], ids=["between steps", "in a computation"])
def test_sigterm_ends_cleanly(arguments: list[str]) -> None:
    found = in_a_process(STOPPED, *arguments)
    assert found.returncode == 143
    assert found.stderr == "terminated; run again to go on\n", "and no C++ stack dump"


def test_colmaps_library_does_not_answer_sigterm() -> None:
    program = "import os, signal, reconstruct.colmap; os.kill(os.getpid(), signal.SIGTERM)"
    found = in_a_process(program)
    assert (found.returncode, found.stderr) == (-signal.SIGTERM, "")


def test_sigterm_waits_until_colmaps_library_is_loaded(tmp_path: Path) -> None:
    """Its answer, in the middle of loading, was a stack dump, or waited for ever for a lock that
    loading held."""
    (tmp_path / "pycolmap.py").write_text(
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: os.write(2, b'stack dump'))\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "time.sleep(0.1)\n"
    )
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "from reconstruct.__main__ import main; sys.exit(main(['plan', 'sfm', '--images', '/tmp']))"
    )
    found = in_a_process(program, tmp_path)
    assert (found.returncode, found.stderr) == (143, "terminated; run again to go on\n")


INTERRUPTED = """
import os, signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from reconstruct.__main__ import main
from reconstruct.pipeline import run

def wait(*arguments, **settings):
    for seconds in (0.5, 1.0):
        threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()
    ThreadPoolExecutor().submit(time.sleep, 50)  # as work ahead, which Python's end waits for
    time.sleep(60)

run.run = wait
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in jobs of a shell script
sys.exit(main(["run", "sfm"]))
"""


def test_a_second_ctrl_c_ends_at_once() -> None:
    found = in_a_process(INTERRUPTED, timeout=40)
    assert found.returncode == 130
    assert found.stderr == "interrupted; run again to go on\n", "and no traceback"


FULL_DISK = """
import json, resource, sys
from reconstruct.__main__ import main

def limited(size, *arguments):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    status = main(["run", *sys.argv[1:], "-q", *arguments])
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return status

statuses = [limited(size) for size in (3_000, 30_000, 400_000)]
statuses.append(limited(resource.RLIM_INFINITY))
statuses += [limited(size, "--force", "database") for size in (30_000, 80_000, 110_000)]
statuses.append(limited(resource.RLIM_INFINITY))
statuses += [limited(size, "--force", "map") for size in (30_000, 110_000)]
print(json.dumps(statuses))
"""


def test_a_full_disk_leaves_nothing_half_done(
    run: Command, chain: Path, photos: Path, tmp_path: Path
) -> None:
    """A limit on the size of files stands for the disk: features, database and model fail in
    turn, early and late, and each time the next run completes."""
    arguments = [str(chain), "--images", str(photos), "--output", str(tmp_path / "out")]
    found = in_a_process(FULL_DISK, *arguments, timeout=600)
    assert "Traceback" not in found.stderr
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == [1, 1, 1, 0, 1, 1, 1, 0, 1, 1]
    for line in found.stderr.splitlines():
        if re.match(r"E\d{8} ", line):  # COLMAP 4.2.0's own, of the same
            continue
        assert line.startswith("error: ")
        assert "run again to go on" in line
        assert str(tmp_path / "out") in line, "the file is named"
    assert not list((tmp_path / "out").rglob(f"*{TEMPORARY}"))
    assert run().status == 0
    assert run(output=tmp_path / "fresh").status == 0
    sparse = [colmap.read_model(tmp_path / name / "sparse") for name in ("out", "fresh")]
    assert colmap.model_summary(sparse[0]) == colmap.model_summary(sparse[1])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_log_that_does_not_fit_is_named() -> None:
    full = Path("/dev/full")
    with pytest.raises(OSError, match="/dev/full"), logging_to(Reporter(-1), full):
        logging.getLogger("reconstruct").info("a line")  # fails again when the log is closed


@pytest.mark.parametrize("artifact", ["database.db", "sparse/images.bin", "pairs.txt"])
def test_an_artifact_that_was_cut_off_is_made_again(
    finished: Path,
    chain: Path,
    command: Command,
    square: SyntheticDataset,
    tmp_path: Path,
    artifact: str,
) -> None:
    output = Path(shutil.copytree(finished, tmp_path / "out"))
    whole = (output / artifact).read_bytes()
    (output / artifact).write_bytes(whole[: len(whole) // 2])
    cameras = f"dataset.cameras={json.dumps(str(square.reference))}"
    found = command("run", chain, "--images", square.images, "--output", output, "--set", cameras)
    assert found.status == 0, found.err
    assert "extracted now 0" in " ".join(found.out.split())
    summaries = [colmap.model_summary(colmap.read_model(o / "sparse")) for o in (finished, output)]
    assert summaries[0] == summaries[1]
    assert yaml.safe_load((output / "run.yaml").read_text(encoding="utf-8"))["config"]


EDITS = [
    ("geometries", "inliers", lambda rows: rows + 10**6, "name keypoints beyond the"),
    ("geometries", "inliers", lambda rows: rows[:, :1], r"expected (M, 2) uint32"),
    ("geometries", "F", lambda rows: rows[:, :2], "is damaged (F of shape"),
    ("features", "image_size", lambda rows: rows[:, :1], "is damaged"),
    ("features", "keypoints", lambda rows: rows[:, :1], "are damaged"),
]


@pytest.mark.parametrize(
    ("folder", "field", "edit", "message"), EDITS, ids=[f"{e[0]} {e[1]} {e[3]}" for e in EDITS]
)
def test_what_somebody_edited_is_named_before_colmap_sees_it(
    output: Path,
    chain: Path,
    command: Command,
    square: SyntheticDataset,
    folder: str,
    field: str,
    edit: Callable[[Any], Any],
    message: str,
) -> None:
    with h5py.File(output / folder / "part-00000.h5", "r+") as file:
        edited = edit(file["fields"][field][()])
        del file["fields"][field]
        file["fields"][field] = edited
    cameras = f"dataset.cameras={json.dumps(str(square.reference))}"
    arguments = ["--images", square.images, "--output", output, "--set", cameras]
    found = command("run", chain, *arguments, "--force", "database")
    (line,) = error_lines(found)
    assert found.status == 1
    assert message in line
    assert "--force" in line
