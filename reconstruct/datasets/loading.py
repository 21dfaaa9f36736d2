"""Section ``dataset`` of a pipeline file -> `Dataset`. A new format is one class and one line."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from reconstruct.config import NotIdentity, Section
from reconstruct.datasets import Dataset
from reconstruct.datasets.aachen import AachenConfig, load_aachen
from reconstruct.datasets.cameras import CamerasConfig
from reconstruct.datasets.depth_folder import DepthFolderConfig, load_depth_folder
from reconstruct.datasets.folder import list_images
from reconstruct.datasets.inloc import InLocConfig, load_inloc
from reconstruct.datasets.queries import check_size, find_queries
from reconstruct.datasets.synthetic import write_dataset
from reconstruct.errors import UsageError
from reconstruct.workspace import atomic_path, fingerprint

logger = logging.getLogger(__name__)


class FolderConfig(CamerasConfig):
    """A folder of photos."""

    format: Literal["folder"]
    images: Annotated[str, NotIdentity] = Field(min_length=1)
    """The folder, subfolders included; names are relative to it."""
    masks: Annotated[str | None, NotIdentity] = None
    """Folder with NAME.png (so photo.jpg.png) for images with masks: 0 = no keypoints there."""
    queries: str | None = None
    """Photos to localize, which are not mapped: a folder inside of ``images``, or a text file with
    ``name camera_model width height params...`` a line (a name alone: camera from EXIF)."""


class SyntheticConfig(CamerasConfig):
    """A rendered town square with exact ground truth: no photos are needed."""

    format: Literal["synthetic"]
    views: int = Field(12, ge=2)
    """Photos, on an arc around the square."""
    width: int = Field(640, ge=64)
    """Of a photo, in pixels."""
    height: int = Field(480, ge=64)
    """Of a photo, in pixels."""
    scene_seed: int = 0
    """Of the textures and of the noise."""
    lighting: Literal["day", "night"] = "day"
    """night: only lamps and lit windows."""
    known_intrinsics: bool = True
    """Map with the exact intrinsics; false: they are guessed and refined, as for any photo."""


DatasetConfig = Annotated[
    FolderConfig | SyntheticConfig | AachenConfig | InLocConfig | DepthFolderConfig,
    Field(discriminator="format"),
]


def load_dataset(config: Section, scratch: Path) -> Dataset:
    """The data set that a section describes; what it leaves out is logged.

    Args:
        config: The section.
        scratch: Folder to which a rendered data set is written, unless it is there already.

    Raises:
        UsageError: A folder is missing.
        DataError: There is no image.
    """
    dataset = _load(config, scratch)
    for name, reason in dataset.skipped.items():
        logger.warning("skipped %s: %s", name, reason)
    return dataset


def _load(config: Section, scratch: Path) -> Dataset:
    if isinstance(config, SyntheticConfig):
        return _synthetic(config, scratch)
    if isinstance(config, AachenConfig):
        return load_aachen(config, scratch)
    if isinstance(config, InLocConfig):
        return load_inloc(config)
    if isinstance(config, DepthFolderConfig):
        return load_depth_folder(config)
    assert isinstance(config, FolderConfig)
    names, skipped = list_images(Path(config.images))
    masks = Path(config.masks) if config.masks else None
    if masks is not None and not masks.is_dir():
        raise UsageError(f"{masks}: no such folder (dataset.masks)")
    root = Path(config.images)
    queries, missing = find_queries(root, names, config.queries) if config.queries else ((), {})
    for query in queries:
        check_size(root / query.name, query.intrinsics)
    return Dataset(root=root, names=names, skipped=skipped | missing, masks=masks, queries=queries)


def _synthetic(config: SyntheticConfig, folder: Path) -> Dataset:
    size = (config.width, config.height)
    night = config.lighting == "night"
    stamp, value = folder / "fingerprint", fingerprint("synthetic", config.identity())
    if not stamp.is_file() or stamp.read_text() != value:
        with atomic_path(folder) as temporary:
            write_dataset(
                temporary, views=config.views, size=size, seed=config.scene_seed, night=night
            )
            (temporary / "fingerprint").write_text(value)
    root = folder / ("night" if night else "images")
    reference = folder / ("night_reference" if night else "reference")
    names, skipped = list_images(root)
    return Dataset(
        root=root,
        names=names,
        skipped=skipped,
        cameras=reference if config.known_intrinsics else None,
        reference=reference,
    )
