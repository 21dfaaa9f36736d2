"""Photos with depth images and known poses, e.g. a sequence of 7-Scenes.

ROOT/images/NAME.jpg      photos
ROOT/depth/NAME.png       uint16 depth registered to the photo, 0 where there is none
ROOT/reference/           COLMAP model: intrinsics and poses (camera from world, metres)
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from reconstruct import colmap
from reconstruct.datasets import Dataset
from reconstruct.datasets.cameras import CamerasConfig
from reconstruct.datasets.folder import list_images
from reconstruct.datasets.queries import find_queries
from reconstruct.datasets.rgbd import DepthImages, depth_file
from reconstruct.errors import DataError, UsageError
from reconstruct.types import Query


class DepthFolderConfig(CamerasConfig):
    """Photos with depth images and known poses. Paths are relative to ``root``."""

    format: Literal["rgbd"]
    root: str
    """Folder that holds the others."""
    images: str = "images"
    """Folder that image names are relative to."""
    depth: str = "depth"
    """Folder with NAME.png for the image NAME.jpg."""
    reference: str = "reference"
    """COLMAP model with intrinsics and poses; those of queries serve as ground truth only."""
    depth_unit_m: float = Field(0.001, gt=0)
    """Metres that one step of the depth image stands for."""
    queries: str | int = 5
    """A number n: every n-th photo is localized and not part of the map. Else a folder inside of
    ``images`` or a text file with a name (and intrinsics) a line."""

    has_points = True

    def load(self, scratch: Path) -> Dataset:
        """See `load_depth_folder`."""
        return load_depth_folder(self)


def load_depth_folder(config: DepthFolderConfig) -> Dataset:
    """The data set. Photos of the map without depth or pose are skipped by name.

    Raises UsageError for missing folders, DataError if there is nothing to map or to localize.
    """
    root = Path(config.root)
    images, depth = root / config.images, root / config.depth
    if not depth.is_dir():
        raise UsageError(f"{depth}: no such folder of depth images (dataset.depth)")
    reference = colmap.model_folder(root / config.reference)
    model = colmap.read_model(reference)
    poses, cameras = colmap.model_poses(model), colmap.model_cameras(model)
    names, skipped = list_images(images)
    queries, missing = _queries(config, root, names)
    asked = {query.name for query in queries}
    usable, reasons = [], dict(missing)
    for name in names:
        if name in asked:
            continue
        if name not in poses:
            reasons[name] = f"no pose in {reference}"
        elif not depth_file(depth, name).is_file():
            reasons[name] = f"no depth image {depth_file(depth, name)}"
        elif cameras[name].model.name not in ("PINHOLE", "SIMPLE_PINHOLE"):
            reasons[name] = f"camera {cameras[name].model.name}: depth needs a pinhole camera"
        else:
            usable.append(name)
    if not usable or not asked:
        raise DataError(f"{root}: {len(usable)} photos with depth and {len(asked)} queries")
    mapped = {name: poses[name] for name in usable}
    return Dataset(
        root=images,
        names=tuple(sorted([*usable, *asked])),
        skipped=skipped | reasons,
        cameras=reference,
        reference=reference,
        queries=queries,
        rgbd=DepthImages(folder=depth, poses=mapped, cameras=cameras, unit_m=config.depth_unit_m),
    )


def _queries(
    config: DepthFolderConfig, root: Path, names: tuple[str, ...]
) -> tuple[tuple[Query, ...], dict[str, str]]:
    if isinstance(config.queries, int):
        if config.queries < 2:
            raise UsageError(
                f"dataset.queries: every n-th photo needs n >= 2, got {config.queries}"
            )
        chosen = names[config.queries - 1 :: config.queries]
        return tuple(Query(name=name) for name in chosen), {}
    return find_queries(root / config.images, names, str(root / config.queries))
