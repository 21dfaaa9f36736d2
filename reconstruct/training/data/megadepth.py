"""MegaDepth in the layout of D2-Net's release: a scene file for each scene, depth in HDF5.

    SCENES/0000.npz   image_paths, depth_paths, intrinsics, poses, overlap_matrix,
                      scale_ratio_matrix, points3D_id_to_2D, points3D_id_to_ndepth

Paths are relative to the folder of the data; an image without depth has None everywhere. Depth
maps are HDF5 with one dataset ``depth`` (H, W), 0 for none. The scene files are made by
`reconstruct.training.data.prepare`. With ``crops: release`` pairs and crops are drawn as by
lib/dataset.py and lib/loss.py of that release.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from reconstruct.config import NotIdentity
from reconstruct.errors import DataError, ImageError, UsageError
from reconstruct.fingerprints import file_hash
from reconstruct.geometry import Float64
from reconstruct.images import read_image
from reconstruct.storage.hdf5 import read_array
from reconstruct.training.data.depth_pairs import DepthPairsConfig, draw_pair
from reconstruct.training.data.groups import Group, Shape
from reconstruct.training.data.layout import Mask
from reconstruct.training.data.object_arrays import read_npz
from reconstruct.training.data.point_crops import crop_corner, point_cells, point_group
from reconstruct.training.data.reprojection import DepthView, reproject


class MegaDepthConfig(DepthPairsConfig):
    """MegaDepth."""

    format: Literal["megadepth"]
    images: Annotated[str, NotIdentity]
    """Folder to which the paths in the scene files are relative."""
    scene_info: Annotated[str, NotIdentity] = "scene_info"
    """Folder of the scene files (.npz), relative to ``images``."""
    scenes: tuple[str, ...] | None = Field(None, strict=False)
    """Names of the scenes; null: all files in the folder."""
    overlap: tuple[float, float] = Field((0.5, 1.0), strict=False)
    """Range of the overlap in the scene file: share of the points of the first photo that the
    second also observes."""
    max_scale_ratio: float = Field(float("inf"), ge=1, allow_inf_nan=True)
    """Largest ratio of the sizes at which two photos show a point: that of the point nearest to
    ratio 1 decides on a pair, that of the central point on a crop."""
    crops: Literal["release", "warped"] = "release"
    """`release`: as the authors do, whole pixels around a point of structure from motion that both
    photos observe, moved inside the photo. `warped`: around a point with depth, with ``zoom`` and
    ``rotation_deg``, mirrored beyond the border of the photo."""
    depth_difference: Literal["absolute", "relative"] = "absolute"
    """What ``depth_tolerance`` limits. `absolute`: as the authors do, in the unit of the model,
    which is another in every scene. `relative`: a share of the depth."""

    @model_validator(mode="after")
    def _check_crops(self) -> MegaDepthConfig:
        if self.crops == "release" and (self.zoom != (1.0, 1.0) or self.rotation_deg):
            raise ValueError("`zoom` and `rotation_deg` go with `crops: warped`")
        return self


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MegaDepthScene:
    """One scene file: paths, cameras, observed points (id -> pixel) and their depths by focal
    length (id -> number), all by image; (P, 2) the pairs that may be drawn."""

    path: Path
    images: list[Any]
    depths: list[Any]
    intrinsics: list[Any]
    poses: list[Any]
    points: list[Any]
    ndepths: list[Any]
    pairs: NDArray[np.int64]


class MegaDepth:
    """See `reconstruct.training.data.groups.TrainingSet`; all scenes are drawn equally often."""

    def __init__(self, config: MegaDepthConfig, root: Path) -> None:
        self.config = config
        self.root = root / config.images
        folder = self.root / config.scene_info
        names = sorted(p.stem for p in folder.glob("*.npz"))
        for name in config.scenes or ():
            if name not in names:
                raise UsageError(
                    f"{folder / name}.npz: no such scene file; run `prepare megadepth`"
                )
        scenes = [self._scene(folder / f"{name}.npz") for name in config.scenes or names]
        self.scenes = [scene for scene in scenes if len(scene.pairs)]
        if not self.scenes:
            low, high = config.overlap
            raise DataError(
                f"{folder}: no scene file (.npz) with a pair of overlap {low:g} to {high:g}; "
                "make them with `python -m reconstruct prepare megadepth`"
            )

    def identity(self) -> list[Any]:
        """Settings and scene files. Photos and depth maps are identified by name only: they are a
        terabyte."""
        return [self.config.identity(), [file_hash(scene.path) for scene in self.scenes]]

    def draw(self, shape: Shape, rng: np.random.Generator) -> Group | None:
        """A group of two photos of one scene."""
        scene = self.scenes[int(rng.integers(len(self.scenes)))]
        views = SceneViews(self.root, scene)
        if self.config.crops == "release":
            return draw_around_point(views, self.config, shape, rng)
        relative = self.config.depth_difference == "relative"
        return draw_pair(views, _overlap_as_given(self.config), shape, rng, relative=relative)

    def _scene(self, path: Path) -> MegaDepthScene:
        data = read_npz(path)
        try:
            overlap, ratio = data["overlap_matrix"], data["scale_ratio_matrix"]
            low, high = self.config.overlap
            good = (overlap >= low) & (overlap <= high) & (ratio <= self.config.max_scale_ratio)
            np.fill_diagonal(good, False)
            keys = ("image_paths", "depth_paths", "intrinsics", "poses")
            images, depths, intrinsics, poses = (list(data[key]) for key in keys)
            points = list(data["points3D_id_to_2D"])
            ndepths = list(data["points3D_id_to_ndepth"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}: not a scene file of D2-Net's layout ({error!r}); "
                "make it with `python -m reconstruct prepare megadepth`"
            ) from error
        return MegaDepthScene(
            path=path,
            images=images,
            depths=depths,
            intrinsics=intrinsics,
            poses=poses,
            points=points,
            ndepths=ndepths,
            pairs=np.argwhere(good),
        )


def _overlap_as_given(config: MegaDepthConfig) -> DepthPairsConfig:
    """Settings without a limit of the overlap, which the scene file has already decided; depth maps
    with holes are less reliable."""
    return config.model_copy(update={"overlap": (0.0, 1.0)})


def draw_around_point(
    views: SceneViews, config: MegaDepthConfig, shape: Shape, rng: np.random.Generator
) -> Group | None:
    """A pair of crops around a point that both photos observe; None if the draw is not usable."""
    a, b = views.pick(rng)
    centres = views.shared_point(a, b, config.max_scale_ratio, rng)
    first, second = views.view(a), views.view(b)
    sizes = [(view.depth.shape[1], view.depth.shape[0]) for view in (first, second)]
    found = [crop_corner(c, size, shape.crop_px) for c, size in zip(centres, sizes, strict=True)]
    if found[0] is None or found[1] is None:
        return None
    corners = found[0], found[1]
    relative = config.depth_difference == "relative"

    def mapping(positions: Float64) -> tuple[Float64, Mask]:
        return reproject(positions, first, second, config.depth_tolerance, relative=relative)

    cells = point_cells(corners, shape, mapping)
    if len(cells) < shape.min_correspondences:
        return None
    photos = read_image(views.photo(a)), read_image(views.photo(b))
    for index, photo, size in zip((a, b), photos, sizes, strict=True):
        if (photo.shape[1], photo.shape[0]) != size:
            raise ImageError(
                f"{views.photo(index)}: {photo.shape[1]} x {photo.shape[0]} pixels, but its depth "
                f"map has {size[0]} x {size[1]}; undistort photos and models anew"
            )
    return point_group(photos, corners, cells, shape, config, rng)


class SceneViews:
    """See `reconstruct.training.data.depth_pairs.Views`."""

    def __init__(self, root: Path, scene: MegaDepthScene) -> None:
        self.root = root
        self.scene = scene

    def pick(self, rng: np.random.Generator) -> tuple[int, int]:
        """Two photos whose overlap is in the range."""
        a, b = self.scene.pairs[int(rng.integers(len(self.scene.pairs)))]
        return int(a), int(b)

    def shared_point(
        self, a: int, b: int, max_scale_ratio: float, rng: np.random.Generator
    ) -> tuple[Float64, Float64]:
        """(2,) COLMAP pixels in each photo of a random point that both observe at like size."""
        points, depths = self.scene.points, self.scene.ndepths
        ids = np.array(sorted(points[a].keys() & points[b].keys()))
        ratio = np.array([depths[a][i] / depths[b][i] for i in ids])
        chosen = int(rng.choice(ids[np.maximum(ratio, 1 / ratio) <= max_scale_ratio]))
        return np.asarray(points[a][chosen], float), np.asarray(points[b][chosen], float)

    def photo(self, index: int) -> Path:
        """The file of a photo."""
        return self.root / str(self.scene.images[index])

    def view(self, index: int) -> DepthView:
        """Camera and depth. Raises ImageError if the depth map cannot be read."""
        path = self.root / str(self.scene.depths[index])
        try:
            depth = np.asarray(read_array(path, "depth"), np.float32)
        except (OSError, ValueError) as error:
            raise ImageError(f"{path}: not a depth map with dataset /depth ({error})") from error
        return DepthView(
            intrinsics=np.asarray(self.scene.intrinsics[index], np.float64),
            cam_from_world=np.asarray(self.scene.poses[index], np.float64)[:3],
            depth=depth,
        )
