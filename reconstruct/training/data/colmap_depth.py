"""A dense COLMAP workspace: undistorted photos, their model, and depth maps.

    ROOT/images/NAME   ROOT/sparse/   ROOT/stereo/depth_maps/NAME.geometric.bin

which is what ``colmap image_undistorter`` and ``colmap patch_match_stereo`` leave.
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
from reconstruct.matching.covisibility import sharing_pairs
from reconstruct.training.data.depth_pairs import DepthPairsConfig, draw_pair
from reconstruct.training.data.groups import Group, Shape
from reconstruct.training.data.reprojection import DepthView
from reconstruct.types import FloatArray


class ColmapDepthConfig(DepthPairsConfig):
    """A dense COLMAP workspace."""

    format: Literal["colmap_depth"]
    images: Annotated[str, NotIdentity]
    """The workspace: a folder with ``images``, ``sparse`` and ``stereo``."""
    kind: Literal["geometric", "photometric"] = "geometric"
    """Depth maps after (geometric) or before (photometric) COLMAP's geometric consistency check."""
    min_shared: int = Field(30, ge=1)
    """Two photos are a candidate pair if they share at least this many 3D points."""


class ColmapDepth:
    """See `reconstruct.training.data.groups.TrainingSet`."""

    def __init__(self, config: ColmapDepthConfig, root: Path) -> None:
        self.config = config
        self.root = root / config.images
        model = colmap.read_model(self.root / "sparse")
        cameras, self.poses = colmap.model_cameras(model), colmap.model_poses(model)
        self.names = sorted(name for name in self.poses if self._depth(name).is_file())
        self.cameras = {name: cameras[name] for name in self.names}
        self.intrinsics = {name: colmap.pinhole_matrix(cameras[name]) for name in self.names}
        observed = colmap.observations(model)
        ids = [np.fromiter(observed[name], np.int64) for name in self.names]
        self.pairs = sharing_pairs(ids, config.min_shared)
        if not self.pairs:
            raise DataError(
                f"{self.root}: {len(self.names)} photos have a depth map in stereo/depth_maps "
                f"(*.{config.kind}.bin), and no two of them share {config.min_shared} points"
            )

    def identity(self) -> list[Any]:
        """Settings, photos, depth and model."""
        files = [(self.photo(i), self._depth(name)) for i, name in enumerate(self.names)]
        hashes = [[file_hash(photo), file_hash(depth)] for photo, depth in files]
        return [self.config.identity(), hashes, tree_hash(self.root / "sparse")]

    def draw(self, shape: Shape, rng: np.random.Generator) -> Group | None:
        """A group of two photos that share points."""
        return draw_pair(self, self.config, shape, rng)

    def pick(self, rng: np.random.Generator) -> tuple[int, int]:
        """Two photos that share points, in either order."""
        a, b = self.pairs[int(rng.integers(len(self.pairs)))]
        return (a, b) if rng.random() < 0.5 else (b, a)

    def photo(self, index: int) -> Path:
        """The file of a photo."""
        return self.root / "images" / self.names[index]

    def view(self, index: int) -> DepthView:
        """Camera and depth. Raises ImageError if the depth map cannot be read."""
        name = self.names[index]
        depth = read_depth_map(self._depth(name))
        size = (self.cameras[name].width, self.cameras[name].height)
        if depth.shape[::-1] != size:
            # patch_match_stereo works on smaller photos where max_image_size says so. The nearest
            # value: between two surfaces, and beside a hole, a mean would be the depth of nothing.
            depth = np.asarray(cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST), np.float32)
        return DepthView(
            intrinsics=self.intrinsics[name], cam_from_world=self.poses[name], depth=depth
        )

    def _depth(self, name: str) -> Path:
        return self.root / "stereo" / "depth_maps" / f"{name}.{self.config.kind}.bin"


def read_depth_map(path: Path) -> FloatArray:
    """(H, W) depth from one of COLMAP's dense maps: ``W&H&1&``, then float32 row by row.

    Raises ImageError if the file is missing, truncated, or of another kind.
    """
    try:
        data = path.read_bytes()
        *numbers, rest = data.split(b"&", 3)
        width, height, channels = (int(number) for number in numbers)
        if channels != 1:
            raise ValueError(f"{channels} channels")
        return np.frombuffer(rest, "<f4").reshape(height, width).copy()
    except (OSError, ValueError) as error:
        raise ImageError(f"{path}: not a depth map of COLMAP ({error})") from error
