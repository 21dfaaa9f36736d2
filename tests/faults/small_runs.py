"""Small runs that together go through every stage: commands that take a few seconds each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from datasets.test_video import pan, write_clip
from indoor.test_comparison import SIFT, SPARSE, VERIFICATION
from PIL import Image
from planes import TILT, write_sequence

from reconstruct import colmap
from reconstruct.__main__ import main
from reconstruct.datasets.rendering import illuminate, render
from reconstruct.datasets.scene import PinholeCamera, View, look_at
from reconstruct.datasets.synthetic import SyntheticDataset, write_depth, write_model, write_photo

pillow_heif = pytest.importorskip("pillow_heif", reason="needs the extra `heif`")

CHAIN: dict[str, Any] = {
    "extract": {"local": {"name": "sift"}},
    "pair": {"method": "exhaustive"},
    "match": {"method": "mutual_nn", "ratio": 0.9},
    "verify": {},
    "map": {"threads": 1},
}


class SmallRun:
    """A command of the program.

    Attributes:
        arguments: Of the command line, but for the output folder.
        template: What the output folder holds before; None: there is no such folder.
        changes: Whether the command is given the folder as OUT, which it adds to, or as --output.
        untold: Names of files that hold times.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        template: Path | None = None,
        *,
        into: bool = False,
        untold: Sequence[str] = (),
    ) -> None:
        self.arguments = [str(argument) for argument in arguments]
        self.template = template
        self.into = into
        self.untold = list(untold)

    def spec(self, output: Path, **more: Any) -> dict[str, Any]:
        """The settings of an attempt on an output folder; see attempts.py."""
        command, *rest = self.arguments
        arguments = [command, str(output), *rest] if self.into else None
        return {
            "arguments": arguments or [command, *rest, "--output", str(output)],
            "output": str(output),
            "template": None if self.template is None else str(self.template),
            "untold": self.untold,
            **more,
        }


Made = Callable[[Path, SyntheticDataset], SmallRun]


def _photos(folder: Path, square: SyntheticDataset, count: int) -> Path:
    folder.mkdir(parents=True)
    for name in square.names[:count]:
        shutil.copy(square.images / name, folder)
    return folder


def _run(folder: Path, pipeline: dict[str, Any], *further: str, **known: Any) -> SmallRun:
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump({"name": "small", **pipeline}), encoding="utf-8")
    return SmallRun(["run", path, "-q", "--device", "cpu", *further], **known)


def _done(folder: Path, run: SmallRun) -> Path:
    spec = run.spec(folder / "done")
    assert main(spec["arguments"]) == 0
    return folder / "done"


def everything(folder: Path, square: SyntheticDataset) -> SmallRun:
    """A refined map with a second pass, and two of its photos localized in it."""
    queries = folder / "queries.txt"
    queries.write_text("".join(f"{name}\n" for name in square.names[:2]), encoding="utf-8")
    dataset = {
        "format": "folder",
        "images": str(_photos(folder / "photos", square, 5)),
        "cameras": str(square.reference),
        "queries": str(queries),
    }
    more: dict[str, Any] = {
        "dataset": dataset,
        "extract": {
            "local": {"name": "sift"},
            "global": {"name": "gem", "max_edge": 64},
            "compact": {"dim": 64, "encoding": "float16"},
        },
        "pair": {"method": "exhaustive", "queries": {"method": "retrieval", "neighbors": 3}},
        "refine": {},
        "map": {"threads": 1, "second_pass": {}},
        "localize": {"refine": {}},
        "evaluate": {"submission": "submission.txt"},
    }
    return _run(folder, CHAIN | more)


def plain(folder: Path, square: SyntheticDataset) -> SmallRun:
    """Structure from motion alone, compared with the truth."""
    dataset = {"format": "folder", "images": str(_photos(folder / "photos", square, 4))}
    return _run(
        folder, CHAIN | {"dataset": dataset, "evaluate": {"reference": str(square.reference)}}
    )


def network(folder: Path, square: SyntheticDataset) -> SmallRun:
    """Features of D2-Net."""
    dataset = {"format": "folder", "images": str(_photos(folder / "photos", square, 3))}
    local = {"name": "d2net", "max_edge": 160, "backend": "torch"}
    chain = {key: CHAIN[key] for key in ("pair", "match", "verify")}
    return _run(folder, {"dataset": dataset, "extract": {"local": local}, **chain})


def positions(folder: Path, square: SyntheticDataset) -> SmallRun:
    """Positions by satellite, and masks."""
    photos = _photos(folder / "photos", square, 4)
    rows = ["name,latitude,longitude,altitude,accuracy"]
    for name in square.names[:4]:
        pose = colmap.model_poses(colmap.read_model(square.reference))[name]
        position = -20 * pose[:, :3].T @ pose[:, 3]
        latitude, longitude, altitude = colmap.geodetic(position, (47.0, 8.0, 400.0))[0].tolist()
        rows.append(f"{name},{latitude!r},{longitude!r},{altitude!r},0.1")
    (folder / "gps.csv").write_text("\n".join(rows))
    dataset = {
        "format": "folder",
        "images": str(photos),
        "gps": {"positions": str(folder / "gps.csv")},
    }
    return _run(folder, CHAIN | {"dataset": dataset, "pair": {"method": "gps"}})


def grown(folder: Path, square: SyntheticDataset) -> SmallRun:
    """A model that grows by a photo."""
    first = plain(folder, square)
    template = _done(folder, first)
    shutil.copy(square.images / square.names[4], folder / "photos")
    return SmallRun([*first.arguments, "--set", "map.start=previous"], template)


def foreign(folder: Path, square: SyntheticDataset) -> SmallRun:
    """Photos that have to be converted."""
    photos = folder / "photos"
    photos.mkdir()
    for number, name in enumerate(square.names[:4]):
        with Image.open(square.images / name) as image:
            if number % 2:
                image.save(photos / f"{number}.webp", quality=95)
            else:
                pillow_heif.from_pillow(image).save(photos / f"{number}.heic", quality=95)
    dataset = {"format": "folder", "images": str(photos)}
    return _run(folder, {"dataset": dataset, "extract": CHAIN["extract"]})


def clip(folder: Path, square: SyntheticDataset) -> SmallRun:
    """Frames of a video."""
    del square
    path = write_clip(folder / "clip.avi", pan(20))
    dataset = {"format": "video", "path": str(path), "frames_per_second": 2}
    return _run(folder, {"dataset": dataset, "extract": CHAIN["extract"]})


def planes(folder: Path, square: SyntheticDataset) -> SmallRun:
    """A benchmark of two extractors on planes."""
    del square
    write_sequence(folder / "planes" / "v_tilt", TILT)
    write_sequence(folder / "planes" / "i_still", np.eye(3), seed=1)
    methods = [
        {"label": "sift", "local": SIFT},
        {"label": "few", "local": {**SIFT, "max_keypoints": 50}},
    ]
    dataset = {"format": "hpatches", "images": str(folder / "planes")}
    return _run(folder, {"dataset": dataset, "methods": methods})


def room(folder: Path, square: SyntheticDataset) -> SmallRun:
    """Candidate poses in a room, verified densely."""
    del square
    from synthetic_building import INDOORS, ROOMS, build_room

    lit = illuminate(build_room(ROOMS[0], 50.0), INDOORS)
    camera = PinholeCamera(width=240, height=180, fx=170.0, fy=170.0, cx=120.0, cy=90.0)
    views = []
    for number in range(6):
        angle = 0.25 * number
        ahead = np.array([np.cos(angle), np.sin(angle), -0.1])
        center = -0.8 * ahead * [1.2, 1, 0] + [0, 0, 1.45]
        pose = look_at(center, center + ahead)
        views.append(View(name=f"frame-{number:02d}", camera=camera, cam_from_world=pose))
    for view in views:
        found = render(lit, view, np.random.default_rng([0, *view.name.encode()]))
        for name in ("images", "depth"):
            (folder / "room" / name).mkdir(parents=True, exist_ok=True)
        write_photo(folder / "room" / "images" / f"{view.name}.jpg", found.image)
        write_depth(folder / "room" / "depth" / f"{view.name}.png", found.depth)
    write_model(folder / "room" / "reference", views)
    rows = [
        {"label": "direct", "poses": [{"method": "direct", "local": SIFT}]},
        {"label": "PV", "poses": [{**SPARSE, "pooled": True}], "verification": VERIFICATION},
    ]
    content = {
        "dataset": {"format": "rgbd", "root": str(folder / "room"), "queries": 3},
        "retrieval": {"local": SIFT, "global": {"name": "gem", "max_edge": 64}, "neighbors": 3},
        "rows": rows,
    }
    return _run(folder, content, untold=["seconds_a_pair.txt"])


def training(folder: Path, square: SyntheticDataset) -> SmallRun:
    """Six steps of training."""
    content = {
        "dataset": {
            "format": "homographies",
            "images": str(_photos(folder / "photos", square, 3)),
            "variants": 2,
            "max_scale": 1.2,
        },
        "validation": {"groups": 2, "every": 2},
        "train": {"crop_px": 64, "min_correspondences": 8, "groups": 3, "epochs": 2},
    }
    return _run(folder, content)


def compared(folder: Path, square: SyntheticDataset) -> SmallRun:
    """Two methods over the same photos."""
    run = plain(folder, square)
    methods = ["sift", "up=name=sift,upright=true"]
    arguments = ["compare", *run.arguments[1:], "--methods", *methods]
    return SmallRun(arguments, untold=["compare.json"])


def joined(folder: Path, square: SyntheticDataset) -> SmallRun:
    """Two models made one."""
    parts = []
    for number, names in enumerate((square.names[:5], square.names[1:])):
        photos = folder / f"photos-{number}"
        photos.mkdir()
        for name in names:
            shutil.copy(square.images / name, photos)
        (folder / str(number)).mkdir()
        dataset = {"format": "folder", "images": str(photos), "cameras": str(square.reference)}
        parts.append(_done(folder / str(number), _run(folder, CHAIN | {"dataset": dataset})))
    return SmallRun(["join", *parts])


def exported(format_: str) -> Made:
    """A model in another format."""

    def made(folder: Path, square: SyntheticDataset) -> SmallRun:
        template = _done(folder, plain(folder, square))
        return SmallRun(["export", "--format", format_], template, into=True)

    return made


def evaluated(folder: Path, square: SyntheticDataset) -> SmallRun:
    """Pose errors of a model."""
    template = _done(folder, plain(folder, square))
    return SmallRun(["evaluate", "--reference", square.reference], template, into=True)


RUNS: dict[str, Made] = {
    **{made.__name__: made for made in (everything, plain, network, positions, grown, foreign)},
    **{made.__name__: made for made in (clip, planes, room, training, compared, joined)},
    **{f"export {name}": exported(name) for name in ("colmap", "gsplat", "hloc")},
    **{f"export {name}": exported(name) for name in ("nerfstudio", "ply", "text")},
    "evaluated": evaluated,
}
"""By name."""


def write_spec(run: SmallRun, folder: Path, **more: Any) -> Path:
    """The file that attempts.py reads."""
    path = folder / "spec.json"
    path.write_text(json.dumps(run.spec(folder / "disk" / "out", **more)), encoding="utf-8")
    return path
