"""Every file format that comes from outside: a small whole file, and what reads it."""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
import torch
from faults.mutation import damaged_bytes, damaged_text
from hypothesis import strategies as st
from PIL import ExifTags, Image
from safetensors.numpy import save

from reconstruct import colmap
from reconstruct.config import parse_override
from reconstruct.datasets import Dataset
from reconstruct.datasets.conversion import convert_photos
from reconstruct.datasets.gps import read_table
from reconstruct.datasets.inloc import read_transformation, read_xyz
from reconstruct.datasets.number_rows import read_rows
from reconstruct.datasets.nvm import read_nvm
from reconstruct.datasets.panorama import PanoramaConfig
from reconstruct.datasets.queries import read_list
from reconstruct.datasets.rgbd import read_depth
from reconstruct.datasets.video import VideoConfig
from reconstruct.features.precomputed import read_precomputed
from reconstruct.features.superpoint import read_weights as read_superpoint
from reconstruct.features.weights import read_weights
from reconstruct.images import exif_orientation, image_size, read_image
from reconstruct.pipeline.config import load_config
from reconstruct.stages.upright import UprightConfig, read_gravity
from reconstruct.storage.pairs import read_pairs
from reconstruct.storage.poses import read_poses
from reconstruct.training.data.object_arrays import read_npz

av = pytest.importorskip("av", reason="needs the extra `video`")
pillow_heif = pytest.importorskip("pillow_heif", reason="needs the extra `heif`")

PIPELINES = Path(__file__).parents[2] / "pipelines"


@dataclass(frozen=True)
class Format:
    """whole: files of the format by name, of which one is damaged at a time. read: takes the path
    of the damaged file; may raise nothing but ReconstructError."""

    whole: dict[str, bytes]
    read: Callable[[Path], object]
    text: bool = False

    def damaged(self, name: str) -> st.SearchStrategy[bytes]:
        """Damaged contents of a file."""
        return (damaged_text if self.text else damaged_bytes)(self.whole[name])


def _image(kind: str, mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    options = {} if kind in ("BMP", "PPM") else {"exif": exif}
    if kind == "TIFF":
        options |= {"compression": "tiff_lzw"}
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def _read_photo(path: Path) -> None:
    try:
        read_image(path)
    finally:
        exif_orientation(path.read_bytes())
        image_size(path)


def _heif() -> bytes:
    file = io.BytesIO()
    with Image.open(io.BytesIO(_image("PNG"))) as image:
        pillow_heif.from_pillow(image.convert("RGB")).save(file)
    return file.getvalue()


def _convert(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        convert_photos(path.parent, [path.name], Path(folder) / "images")


def _clip() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=2)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for value in (0, 90, 180):
            pixels = np.full((24, 32, 3), value, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def _take_frames(path: Path) -> None:
    settings = VideoConfig(format="video", path=str(path))
    with tempfile.TemporaryDirectory() as folder:
        settings.load(Path(folder))


def _panorama() -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "maker"
    exif.get_ifd(ExifTags.IFD.GPSInfo).update({1: "N", 2: (48.0, 30.0, 0.0)})
    file = io.BytesIO()
    Image.fromarray(np.full((16, 32, 3), 90, np.uint8)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def _cut(path: Path) -> None:
    settings = PanoramaConfig(format="panorama", images=str(path.parent))
    with tempfile.TemporaryDirectory() as folder:
        settings.load(Path(folder))


def _read_gravity(path: Path) -> None:
    photos = Dataset(root=path.parent, names=("a.jpg", "b, c"))
    read_gravity(UprightConfig(gravity=str(path)), photos)


def _npz(**arrays: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _features() -> bytes:
    rng = np.random.default_rng(0)
    return _npz(keypoints=rng.random((6, 2)), scores=rng.random(6), descriptors=rng.random((6, 4)))


def _scene() -> bytes:
    paths, tables = np.empty(2, object), np.empty(2, object)
    paths[:], tables[:] = ["a.jpg", None], [{1: 2.0}, None]
    return _npz(image_paths=paths, points=tables, overlap_matrix=np.ones((2, 2)))


def _checkpoint() -> bytes:
    file = io.BytesIO()
    torch.save({"model": {"conv1_1.weight": torch.zeros(4, 3, 3, 3), "b": torch.ones(2)}}, file)
    return file.getvalue()


def _depth() -> bytes:
    return cv2.imencode(".png", np.arange(768, dtype=np.uint16).reshape(24, 32))[1].tobytes()


def _xyz() -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, {"XYZcut": np.random.default_rng(0).random((4, 5, 3))})
    return file.getvalue()


def _model(folder: Path, text: bool) -> dict[str, bytes]:
    model = colmap.read_model(folder)
    copy = folder.with_name(f"whole-{'text' if text else 'binary'}")
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    (model.write_text if text else model.write_binary)(copy)
    return {path.name: path.read_bytes() for path in sorted(copy.iterdir())}


def _read_folder(path: Path) -> None:
    model = colmap.read_model(path.parent)
    for use in (colmap.model_poses, colmap.model_cameras, colmap.model_points, colmap.observations):
        use(model)
    colmap.model_summary(model)


_POSES = b"# poses\na.jpg 1 0 0 0 0 0 0\nb c.jpg 0.70710678 0 0 0.70710678 1 2 3\n"
_QUERIES = (
    b"# queries\na b.jpg SIMPLE_RADIAL 1600 1200 1469.2 800 600 -0.03\n"
    b"c.jpg PINHOLE 640 480 500 500 320 240\nd.jpg\n"
)
_NVM = (
    b"NVM_V3\n\n2\na.jpg 500 1 0 0 0 0 0 0 0.1 0\nb.jpg 500 1 0 0 0 1 0 0 0 0\n\n"
    b"2\n0 0 5 9 9 9 2 0 0 1 2 1 0 3 4\n1 1 5 9 9 9 1 0 1 5 6\n\n0\n"
)
_GPS = b'name,latitude,longitude,altitude,accuracy\na.jpg,47.1,8.2,400,5\n"b, c",47,8,,\n'
_GRAVITY = b'name,x,y,z\na.jpg,0.1,9.8,-0.3\n"b, c",0,1,0\n'
_RIGS = (
    b'[{"cameras": [{"image_prefix": "l/", "ref_sensor": true}, {"image_prefix": "r/", '
    b'"cam_from_rig_rotation": [1, 0, 0, 0], "cam_from_rig_translation": [-0.5, 0, 0], '
    b'"camera_model_name": "PINHOLE", "camera_params": [90, 90, 50, 40]}]}]'
)
_TRANSFORMATION = b"After general icp:\n1 0 0 1\n0 1 0 2\n0 0 1 3\n0 0 0 1\n"


def formats(model: Path) -> dict[str, Format]:
    """All of them by name. model: a folder with a small COLMAP model."""
    known = ["a.jpg", "b c.jpg", "c.jpg"]
    photos = {
        "a.jpg": _image("JPEG"),
        "b.png": _image("PNG"),
        "c.tif": _image("TIFF"),
        "d.bmp": _image("BMP"),
        "e.ppm": _image("PPM"),
        "f.jpg": _image("JPEG", "CMYK"),
        "g.png": _image("PNG", "P"),
    }
    pipelines = {path.name: path.read_bytes() for path in sorted(PIPELINES.glob("*.yaml"))}
    foreign = {
        "a.heic": _heif(),
        "b.webp": _image("WEBP"),
        "c.avif": _image("AVIF"),
    }
    return {
        "foreign photo": Format(foreign, _convert),
        "gps table": Format({"gps.csv": _GPS}, read_table, text=True),
        "gravity table": Format({"gravity.csv": _GRAVITY}, _read_gravity, text=True),
        "panorama": Format({"a.jpg": _panorama()}, _cut),
        "rigs": Format({"rigs.json": _RIGS}, colmap.Rigs, text=True),
        "video": Format({"clip.avi": _clip()}, _take_frames),
        "photo": Format(photos, _read_photo),
        "pipeline file": Format(pipelines, load_config, text=True),
        "override": Format(
            {"a": b"extract.local={name: d2net, max_edge: 320}"},
            lambda path: load_config(
                PIPELINES / "sfm.yaml",
                dict([parse_override(path.read_bytes().decode("utf-8", "replace"))]),
            ),
            text=True,
        ),
        "poses": Format({"poses.txt": _POSES}, read_poses, text=True),
        "queries": Format({"queries.txt": _QUERIES}, read_list, text=True),
        "pairs": Format(
            {"pairs.txt": b"# x\na.jpg c.jpg\nb c.jpg\ta.jpg\n"},
            lambda path: read_pairs(path, known),
            text=True,
        ),
        "rows of numbers": Format(
            {"h": b"1 0 3\n0 1 4\n0 0 1\n"}, lambda path: read_rows(path, 3), text=True
        ),
        "nvm": Format({"model.nvm": _NVM}, read_nvm, text=True),
        "transformation": Format({"t.txt": _TRANSFORMATION}, read_transformation, text=True),
        "features": Format({"a": _features()}, lambda path: read_precomputed(path, (9, 9))),
        "scene file": Format({"a.npz": _scene()}, read_npz),
        "safetensors": Format(
            {"a.safetensors": save({"conv1_1.weight": np.zeros((4, 3, 3, 3), np.float32)})},
            read_weights,
        ),
        "checkpoint": Format({"a.pth": _checkpoint()}, read_weights),
        "superpoint": Format({"a.pth": _checkpoint()}, read_superpoint),
        "depth": Format({"a.png": _depth()}, lambda path: read_depth(path, 0.001)),
        "matlab": Format({"a.mat": _xyz()}, read_xyz),
        "model, binary": Format(_model(model, text=False), _read_folder),
        "model, text": Format(_model(model, text=True), _read_folder, text=True),
    }
