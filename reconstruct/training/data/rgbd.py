"""RGB-D folders in the layout of 7-Scenes: photos, depth registered to them, poses.

    ROOT/images/NAME.jpg   ROOT/depth/NAME.png (uint16, thousandths, 0 = none)   ROOT/reference/

``reference`` is a COLMAP model of the photos, pinhole cameras, poses in metres.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
from pydantic import Field

from reconstruct import colmap
from reconstruct.config import NotIdentity
from reconstruct.errors import DataError, ImageError
from reconstruct.fingerprints import file_hash, tree_hash
from reconstruct.geometry import Float64
from reconstruct.training.data.depth_pairs import DepthPairsConfig, draw_pair
from reconstruct.training.data.groups import Group, Shape
from reconstruct.training.data.reprojection import DepthView


class RgbdConfig(DepthPairsConfig):
    """Photos with registered depth images and a COLMAP model of their poses."""

    format: Literal["rgbd"]
    images: Annotated[str, NotIdentity]
    """Folder with ``images``, ``depth`` and ``reference``."""
    depth_unit: float = Field(0.001, gt=0)
    """One step of the depth images in the unit of the poses (7-Scenes: a millimetre)."""


class Rgbd:
    """See `reconstruct.training.data.groups.TrainingSet`."""

    def __init__(self, config: RgbdConfig, root: Path) -> None:
        self.config = config
        self.root = root / config.images
        model = colmap.read_model(self.root / "reference")
        self.poses = colmap.model_poses(model)
        cameras = colmap.model_cameras(model)
        self.intrinsics = {name: colmap.pinhole_matrix(cameras[name]) for name in self.poses}
        self.names = sorted(name for name in self.poses if self._depth(name).is_file())
        if len(self.names) < 2:
            raise DataError(
                f"{self.root}: expected two or more photos of reference/ with a depth image, "
                f"depth/NAME.png; found {len(self.names)}"
            )

    def identity(self) -> list[Any]:
        """Settings, photos, depth and poses."""
        files = [(self.photo(i), self._depth(name)) for i, name in enumerate(self.names)]
        hashes = [[file_hash(photo), file_hash(depth)] for photo, depth in files]
        return [self.config.identity(), hashes, tree_hash(self.root / "reference")]

    def draw(self, shape: Shape, rng: np.random.Generator) -> Group | None:
        """A group of two frames."""
        return draw_pair(self, self.config, shape, rng)

    def pick(self, rng: np.random.Generator) -> tuple[int, int]:
        """Any two frames."""
        a, b = rng.choice(len(self.names), 2, replace=False)
        return int(a), int(b)

    def photo(self, index: int) -> Path:
        """The file of a photo."""
        return self.root / "images" / self.names[index]

    def view(self, index: int) -> DepthView:
        """Camera and depth. Raises ImageError if the depth image cannot be read."""
        name = self.names[index]
        path = self._depth(name)
        values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if values is None or values.ndim != 2:
            raise ImageError(f"{path}: expected a depth image of one channel, uint16")
        depth = values.astype(np.float32) * np.float32(self.config.depth_unit)
        intrinsics: Float64 = self.intrinsics[name]
        return DepthView(intrinsics=intrinsics, cam_from_world=self.poses[name], depth=depth)

    def _depth(self, name: str) -> Path:
        return (self.root / "depth" / name).with_suffix(".png")
