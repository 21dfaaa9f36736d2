"""Section ``dataset`` of a pipeline file -> `Dataset`.

A new data set is one file with its settings, which `load` it, and one line in `DatasetConfig`. One
whose images have depth or scans says so with ``has_points = True``: it is a map itself.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

from pydantic import Field

from reconstruct.datasets import Dataset
from reconstruct.datasets.aachen import AachenConfig
from reconstruct.datasets.cameras import CamerasConfig
from reconstruct.datasets.depth_folder import DepthFolderConfig
from reconstruct.datasets.inloc import InLocConfig
from reconstruct.datasets.panorama import PanoramaConfig
from reconstruct.datasets.photos import FolderConfig
from reconstruct.datasets.square import SyntheticConfig
from reconstruct.datasets.video import VideoConfig

logger = logging.getLogger(__name__)

DatasetConfig = Annotated[
    FolderConfig
    | VideoConfig
    | PanoramaConfig
    | SyntheticConfig
    | AachenConfig
    | InLocConfig
    | DepthFolderConfig,
    Field(discriminator="format"),
]


def load_dataset(config: CamerasConfig, scratch: Path) -> Dataset:
    """The data set that a section describes; what it leaves out is logged.

    Args:
        config: The section.
        scratch: Folder for what is made of the data, unless it is there already.

    Raises:
        UsageError: A folder is missing.
        DataError: There is no image.
    """
    dataset = config.load(scratch)
    for name, reason in dataset.skipped.items():
        logger.warning("skipped %s: %s", name, reason)
    return dataset
