"""Which camera took which photo: given intrinsics, or COLMAP's guess from EXIF."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import Field

from reconstruct import colmap
from reconstruct.config import Section
from reconstruct.datasets import Dataset
from reconstruct.workspace import tree_hash


class CameraSpec(Section):
    """One camera for all images."""

    model: str
    """COLMAP's name: SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL, OPENCV ..."""
    params: tuple[float, ...] = Field(strict=False)
    """COLMAP's parameters in its order, e.g. fx, fy, cx, cy for PINHOLE, in pixels."""


class CamerasConfig(Section):
    """What every data set of photos lets one say about cameras."""

    cameras: str | CameraSpec | None = None
    """Known intrinsics: a COLMAP model folder (images by name), or one camera for all as
    ``{model: PINHOLE, params: [fx, fy, cx, cy]}``. null: from EXIF, as COLMAP infers them."""
    camera_sharing: Literal["image", "folder", "single"] = "image"
    """Which photos share a camera where none is given (only photos of one size do)."""
    camera_model: str = "SIMPLE_RADIAL"
    """COLMAP's camera model where none is given."""


def assign(
    config: CamerasConfig, dataset: Dataset, sizes: Mapping[str, tuple[int, int]]
) -> colmap.CameraAssignment:
    """The cameras of the images in ``sizes`` (name -> (width, height)).

    Raises UsageError if a given camera does not fit its image.
    """
    return colmap.assign_cameras(
        sizes,
        given=_given(config, dataset, sizes),
        guess=lambda name: colmap.guess_camera(dataset.path(name), config.camera_model),
        group=lambda name: _group(name, config.camera_sharing),
    )


def identity(config: CamerasConfig, dataset: Dataset) -> list[Any]:
    """JSON-able: what decides the cameras, beside the images themselves."""
    folder = _folder(config, dataset)
    return [config.identity(), tree_hash(folder) if folder else None]


def _folder(config: CamerasConfig, dataset: Dataset) -> Path | None:
    if isinstance(config.cameras, str):
        return Path(config.cameras)
    return dataset.cameras if config.cameras is None else None


def _given(
    config: CamerasConfig, dataset: Dataset, sizes: Mapping[str, tuple[int, int]]
) -> Callable[[str], colmap.Camera | None]:
    folder = _folder(config, dataset)
    if folder is not None:
        return colmap.model_cameras(colmap.read_model(folder)).get
    spec = config.cameras
    if isinstance(spec, CameraSpec):
        # All images have the size of the first one: `assign_cameras` names one that has not.
        camera = colmap.make_camera(spec.model, spec.params, next(iter(sizes.values())))
        return lambda name: camera
    return lambda name: None


def _group(name: str, sharing: str) -> str:
    folder = str(PurePosixPath(name).parent)
    return {"image": name, "folder": folder, "single": ""}[sharing]
