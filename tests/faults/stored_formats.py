"""What a run leaves and reads again, and rarer formats from outside; see formats.py."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from datasets.test_accelerometer import maker_note
from datasets.test_conversion import write_dng
from faults.formats import Format
from PIL import Image

from reconstruct import colmap
from reconstruct.datasets.accelerometer import gravity_at_rest
from reconstruct.datasets.cameras import exif_camera
from reconstruct.datasets.conversion import convert_photos
from reconstruct.datasets.gimbal import noted_gravity
from reconstruct.datasets.gps import exif_position
from reconstruct.datasets.inloc import read_xyz
from reconstruct.errors import ArtifactError
from reconstruct.export.result import Result
from reconstruct.features.compaction import read_basis, write_basis
from reconstruct.fingerprints import database_hash
from reconstruct.localization.localizer import _MapSettings
from reconstruct.retrieval.aggregation import Aggregation, Whitening
from reconstruct.retrieval.index import GlobalIndex, read_index, write_index
from reconstruct.retrieval.netvlad import load_netvlad
from reconstruct.stages.outcome import read_settings
from reconstruct.storage.candidates import CandidatePoses, CandidateStore, ScoreStore
from reconstruct.storage.estimates import EstimateStore
from reconstruct.storage.features import FeatureStore
from reconstruct.storage.geometries import GeometryStore
from reconstruct.storage.hdf5 import read_array
from reconstruct.storage.matches import MatchStore, key_pair
from reconstruct.storage.shard_file import Record
from reconstruct.storage.shards import ShardStore
from reconstruct.storage.summary import read_summary
from reconstruct.training.data.colmap_depth import read_depth_map
from reconstruct.types import PoseEstimate
from reconstruct.workspace import Workspace

SHARD = "part-00000.h5"


def stored_formats(finished: Path, folder: Path) -> dict[str, Format]:
    """All of them by name. finished: a run's output; folder: an empty one."""
    return {**_of_runs(finished, folder), **_from_outside(folder)}


def _shard(store: type[ShardStore], folder: Path, records: list[Record]) -> bytes:
    return store(folder / store.__name__).write(records).read_bytes()


def _of_runs(finished: Path, folder: Path) -> dict[str, Format]:
    pose = np.eye(3, 4)
    estimate = PoseEstimate(
        name="q.jpg",
        status="ok",
        matches=9,
        inliers=8,
        cam_from_world=pose,
        covariance=np.eye(6),
        params=(1.0, 2.0),
    )
    candidates = CandidatePoses(
        poses=pose[None],
        inliers=(8,),
        matches=(9,),
        places=("a",),
        images=("b",),
        most_matches=9,
        seconds=0.1,
    )
    rows = np.eye(4, dtype=np.float32)
    aggregation = Aggregation(vocabulary=rows, whitening=Whitening(mean=rows[0], projection=rows))
    index = GlobalIndex(names=tuple("abcd"), descriptors=rows, aggregation=aggregation)
    write_index(folder / "index.h5", index)
    write_basis(folder / "basis.safetensors", rows)
    estimates = _shard(EstimateStore, folder, [EstimateStore.record("f", estimate)])
    poses = _shard(CandidateStore, folder, [CandidateStore.record("q", "f", candidates)])
    scores = _shard(ScoreStore, folder, [ScoreStore.record("q", "f", [1.0], 0.1)])
    texts = {
        name: (finished / name).read_bytes()
        for name in ("summary.json", "run.yaml", ".fingerprints.json")
    }
    stored = {kind: (finished / kind / SHARD).read_bytes() for kind in STORES}
    return {
        "basis": Format({"a.safetensors": (folder / "basis.safetensors").read_bytes()}, read_basis),
        "database": Format({"database.db": (finished / "database.db").read_bytes()}, _database),
        "global index": Format({"index.h5": (folder / "index.h5").read_bytes()}, read_index),
        "shard of candidates": Format({SHARD: poses}, _store(CandidateStore)),
        "shard of estimates": Format({SHARD: estimates}, _store(EstimateStore)),
        "shard of scores": Format({SHARD: scores}, _store(ScoreStore)),
        **{
            f"shard of {kind}": Format({SHARD: stored[kind]}, _store(STORES[kind]))
            for kind in STORES
        },
        "texts of a run": Format(texts, _texts, text=True),
    }


STORES: dict[str, type[ShardStore]] = {
    "features": FeatureStore,
    "geometries": GeometryStore,
    "matches": MatchStore,
}


def _store(kind: type[ShardStore]) -> Any:
    def read(path: Path) -> None:
        store: Any = kind(path.parent)
        keys = store.fingerprints()
        for key in keys:
            store.load(key_pair(key) if kind in (MatchStore, GeometryStore) else key)
        if not keys:
            raise ArtifactError("counts as missing")

    return read


def _database(path: Path) -> None:
    database_hash(path)
    for read in (
        colmap.verified_matches,
        colmap.database_keypoints,
        colmap.verified_counts,
        colmap.database_cameras,
        colmap.database_keypoint_counts,
    ):
        read(path)


def _texts(path: Path) -> None:
    workspace = Workspace(path.parent)
    read_summary(workspace.summary)
    workspace.stamp(workspace.database)
    read_settings(workspace.config, _MapSettings)
    Result(path.parent)._images_of_run()


def _from_outside(folder: Path) -> dict[str, Format]:
    photos, tags = {}, Image.Exif()
    tags[0x0110] = "Model"
    pitch_and_roll = [struct.pack("<HHIf", tag, 11, 1, value) for tag, value in ((9, -30), (11, 0))]
    note = struct.pack("<HHHI4s", 3, 1, 2, 4, b"DJI") + b"".join(pitch_and_roll)
    tags.get_ifd(0x8769).update({0x920A: 4.25, 0x927C: note})
    tags.get_ifd(0x8825).update({1: "N", 2: (47.0, 0.0, 0.0), 3: "E", 4: (8.0, 0.0, 0.0)})
    for name, kind in (("a.jpg", "JPEG"), ("b.png", "PNG"), ("c.tif", "TIFF")):
        file = io.BytesIO()
        Image.new("RGB", (16, 12)).save(file, kind, exif=tags.tobytes())
        photos[name] = file.getvalue()
    tags.get_ifd(0x8769)[0x927C] = maker_note((-0.8, 0.0, -0.6))
    file = io.BytesIO()
    Image.new("RGB", (16, 12)).save(file, "JPEG", exif=tags.tobytes())
    phone = {"a.jpg": file.getvalue()}
    with h5py.File(folder / "depth.h5", "w") as hdf5:
        hdf5["depth"] = np.ones((6, 8), np.float32)
        hdf5["XYZcut"] = np.ones((3, 8, 6), np.float32)
    depth = (folder / "depth.h5").read_bytes()
    colmap_depth = b"8&6&1&" + np.ones((6, 8), "<f4").tobytes()
    file = io.BytesIO()
    layer = {"weights": np.ones((3, 3))}
    scipy.io.savemat(file, {"net": {"layers": [layer], "meta": {"normalization": {}}}})
    return {
        "depth in HDF5": Format({"d.h5": depth}, _depth),
        "depth of COLMAP": Format({"d.bin": colmap_depth}, read_depth_map),
        "netvlad": Format({"n.mat": file.getvalue()}, load_netvlad),
        "raw photo": Format(
            {"a.dng": write_dng(folder / "a.dng", (32, 24), {}).read_bytes()}, _develop
        ),
        "tags of a photo": Format(photos, _tags),
        "tags of a phone": Format(phone, _note),
    }


def _depth(path: Path) -> None:
    try:
        read_array(path, "depth")
    except (OSError, ValueError) as error:
        raise ArtifactError(str(error)) from error
    read_xyz(path)


def _tags(path: Path) -> None:
    unknown = exif_position(path) is None or noted_gravity(path) is None
    if unknown or not isinstance(exif_camera(path), str | None):
        raise ArtifactError("tells no position, or no pitch")


def _note(path: Path) -> None:
    if gravity_at_rest(path) is None:
        raise ArtifactError("tells no acceleration")


def _develop(path: Path) -> None:
    convert_photos(path.parent, [path.name], path.parent / "converted")
