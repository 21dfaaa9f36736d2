"""InLoc (Taira et al., CVPR 2018) in its public layout, built on the scans of Wijmans and Furukawa.

    ROOT/database/cutouts/DUC1/001/DUC_cutout_001_0_0.jpg        scan 001, pan 0, tilt 0 degrees
    ROOT/database/cutouts/DUC1/001/DUC_cutout_001_0_0.jpg.mat    XYZcut (H, W, 3), RGBcut
    ROOT/database/alignments/DUC1/transformations/DUC_trans_001.txt
    ROOT/query/iphone7/IMG_0731.JPG
    ROOT/ground_truth/DUC1.txt    optional: name qw qx qy qz tx ty tz of the queries of a floor

Names are relative to ROOT. XYZcut is in the frame of its scan, NaN where nothing was measured; the
transformation (the one "After general icp") takes it to the floor's frame, in metres. The photo
beside it shows the same pixels as RGBcut, which therefore is not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import h5py
import numpy as np

from reconstruct.datasets import Dataset
from reconstruct.datasets.cameras import CamerasConfig
from reconstruct.datasets.folder import list_images
from reconstruct.datasets.rgbd import transform_points
from reconstruct.errors import DataError, ImageError, UsageError
from reconstruct.files import TEXT_LIMIT_BYTES, read_bytes
from reconstruct.geometry import Float64
from reconstruct.images import image_size
from reconstruct.storage.hdf5 import read_array
from reconstruct.storage.matlab import read_matlab
from reconstruct.storage.poses import read_poses
from reconstruct.types import FloatArray, Intrinsics, Query

FOCAL_PER_EDGE = 28.0 / 36.0
"""Focal length of the iPhone 7's photos divided by their longer edge: a 28 mm lens on 36 mm
film."""


class InLocConfig(CamerasConfig):
    """The folder of the data set."""

    format: Literal["inloc"]
    root: str
    """Folder with database/ and query/."""
    floors: tuple[str, ...] | None = None
    """Floors of the map, e.g. [DUC1]; null: all that are present."""
    ground_truth: str = "ground_truth"
    """Folder below ``root`` with a list of known poses for each floor."""

    has_points = True

    def load(self, scratch: Path) -> Dataset:
        """See `load_inloc`."""
        return load_inloc(self)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CutOuts:
    """The cut-outs as `reconstruct.datasets.rgbd.RgbdImages`; a place is a scan, ``DUC1/001``."""

    root: Path
    world_from_scan: Mapping[str, Float64]
    """Place -> (4, 4)."""
    names: tuple[str, ...]

    def place(self, name: str) -> str:
        """The scan of a cut-out, ``DUC1/001``."""
        return "/".join(PurePosixPath(name).parts[-3:-1])

    def files(self, name: str) -> tuple[Path, ...]:
        """The file with the points; see `RgbdImages.files`."""
        return (mat_file(self.root, name),)

    def identity(self, name: str) -> list[float]:
        """The transformation of the scan; see `RgbdImages.identity`."""
        return self.world_from_scan[self.place(name)].ravel().tolist()

    def center(self, name: str) -> Float64:
        """(3,) position of the scanner."""
        return np.asarray(self.world_from_scan[self.place(name)][:3, 3])

    def xyz(self, name: str) -> FloatArray:
        """(H, W, 3) points in the frame of the floor; see `RgbdImages.xyz`."""
        points = read_xyz(mat_file(self.root, name))
        return transform_points(self.world_from_scan[self.place(name)], points).astype(np.float32)


def mat_file(root: Path, name: str) -> Path:
    """The file with the 3D points of a cut-out."""
    return root / f"{name}.mat"


def load_inloc(config: InLocConfig) -> Dataset:
    """The data set. Cut-outs without .mat or without the transformation of their scan are skipped
    by name.

    Raises UsageError if a part of the layout is missing, DataError if no cut-out or no query is
    left.
    """
    root = Path(config.root)
    cutouts, queried = root / "database" / "cutouts", root / "query"
    for folder in (root, cutouts, queried):
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder; expected InLoc's layout (dataset.root)")
    names, skipped = _below(root, cutouts)
    asked, unreadable = _below(root, queried)
    skipped |= unreadable
    transforms: dict[str, Float64] = {}
    kept, lost = [], Counter[str]()
    for name in names:
        floor, scan = PurePosixPath(name).parts[-3:-1]
        if config.floors is not None and floor not in config.floors:
            continue
        try:
            if not mat_file(root, name).is_file():
                raise ImageError(f"{mat_file(root, name)}: no such file; without it there is no 3D")
            if f"{floor}/{scan}" not in transforms:
                path = transformation_file(root, name)
                transforms[f"{floor}/{scan}"] = read_transformation(path)
            kept.append(name)
        except ImageError as error:
            skipped[name] = str(error)
            lost[f"{floor}/{scan}"] += 1
    places = {"/".join(PurePosixPath(name).parts[-3:-1]) for name in kept}
    for place in sorted(set(lost) - places):
        skipped[f"place {place}"] = f"all of its {lost[place]} cut-outs are skipped"
    if not kept or not asked:
        raise DataError(f"{root}: {len(kept)} usable cut-outs and {len(asked)} queries")
    truth = root / config.ground_truth
    groups = query_groups(truth) if truth.is_dir() else {}
    queries = tuple(_query(root, name, groups) for name in asked)
    return Dataset(
        root=root,
        names=tuple(sorted([*kept, *asked])),
        skipped=skipped,
        reference=truth if truth.is_dir() else None,
        queries=queries,
        rgbd=CutOuts(root=root, world_from_scan=transforms, names=tuple(kept)),
    )


def query_groups(folder: Path) -> dict[str, str]:
    """Query -> floor, from the lists ``FLOOR.txt`` of known poses in a folder."""
    return {name: path.stem for path in sorted(folder.glob("*.txt")) for name in read_poses(path)}


def _below(root: Path, folder: Path) -> tuple[list[str], dict[str, str]]:
    prefix = folder.relative_to(root).as_posix()
    names, skipped = list_images(folder)
    return [f"{prefix}/{name}" for name in names], {f"{prefix}/{k}": v for k, v in skipped.items()}


def _query(root: Path, name: str, groups: Mapping[str, str]) -> Query:
    group = groups.get(name, "queries")
    try:
        width, height = image_size(root / name)
    except ImageError:  # extraction names and skips it
        return Query(name=name, group=group)
    params = (max(width, height) * FOCAL_PER_EDGE, width / 2, height / 2)
    intrinsics = Intrinsics(model="SIMPLE_PINHOLE", size=(width, height), params=params)
    return Query(name=name, intrinsics=intrinsics, group=group)


def transformation_file(root: Path, name: str) -> Path:
    """The file with the transformation of a cut-out's scan: by floor, building and scan."""
    floor, scan, base = PurePosixPath(name).parts[-3:]
    building = base.split("_", 1)[0]
    folder = root / "database" / "alignments" / floor / "transformations"
    return folder / f"{building}_trans_{scan}.txt"


def read_transformation(path: Path) -> Float64:
    """(4, 4) rigid transform floor_from_scan: the last four rows of four numbers in the file.

    It holds two matrices under headers, "Before general icp:" and "After general icp:".
    Raises ImageError naming the file.
    """
    try:
        text = read_bytes(path, TEXT_LIMIT_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise ImageError(f"{path}: no readable transformation ({error.strerror})") from error
    rows = [row for row in map(_numbers, text.splitlines()) if len(row) == 4]
    matrix = np.array(rows[-4:], np.float64)
    if len(rows) < 4 or not np.isfinite(matrix).all():
        raise ImageError(f"{path}: expected four rows of four numbers below 'After general icp:'")
    rotation = matrix[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-2 or np.linalg.det(rotation) < 0:
        raise ImageError(f"{path}: its matrix is no rigid transformation")
    return matrix


def _numbers(line: str) -> list[float]:
    try:
        return [float(word) for word in line.split()]
    except ValueError:
        return []


def read_xyz(path: Path) -> FloatArray:
    """(H, W, 3) ``XYZcut`` of a MATLAB file (up to v7 or v7.3), NaN where nothing was measured.

    Raises ImageError naming the file.
    """
    try:
        values = _read_xyzcut(path)
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: no XYZcut can be read ({error})") from error
    if np.ndim(values) != 3 or values.shape[2] != 3:
        raise ImageError(f"{path}: expected XYZcut of shape (H, W, 3), got {np.shape(values)}")
    # What does not fit becomes infinite: not measured, as NaN of any kind.
    with np.errstate(over="ignore", invalid="ignore"):
        points = np.asarray(values, np.float32)
    # The scanner stands in the origin: a point there was not measured.
    invalid = np.asarray(~np.isfinite(points).all(axis=2) | ~points.any(axis=2))
    return np.where(invalid[..., None], np.float32(np.nan), points)


def _read_xyzcut(path: Path) -> Any:
    if h5py.is_hdf5(path):  # v7.3
        # MATLAB counts the first index fastest, HDF5 the last.
        return read_array(path, "XYZcut").transpose()
    return read_matlab(path, "XYZcut")
