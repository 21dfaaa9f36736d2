"""Cameras: which image was taken by which, models by name, conversion of intrinsics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from numpy.typing import NDArray

from reconstruct.colmap.model_check import bad_intrinsics
from reconstruct.errors import DataError, UnknownNameError, UsageError
from reconstruct.types import Intrinsics

Camera = pycolmap.Camera


@dataclass(frozen=True, slots=True, eq=False)
class CameraAssignment:
    """Which image was taken by which camera.

    Attributes:
        cameras: Camera id -> camera; ids count from 1.
        camera_ids: Image name -> camera id.
        known: Ids of cameras whose intrinsics were given, not guessed from EXIF.
    """

    cameras: dict[int, Camera] = field(default_factory=dict)
    camera_ids: dict[str, int] = field(default_factory=dict)
    known: set[int] = field(default_factory=set)

    def identity(self) -> list[Any]:
        """All that decides what COLMAP is told about the cameras, as JSON types."""
        rows = {
            i: [c.model.name, c.width, c.height, c.params.tolist(), i in self.known]
            for i, c in self.cameras.items()
        }
        return [[name, rows[i]] for name, i in sorted(self.camera_ids.items())]


def assign_cameras(
    sizes: Mapping[str, tuple[int, int]],
    given: Callable[[str], Camera | None],
    guess: Callable[[str], Camera],
    group: Callable[[str], str],
    sensor: Callable[[str], str | None] = lambda name: None,
) -> CameraAssignment:
    """A camera for every image: the given one if there is one, else one guessed for each group.

    Args:
        sizes: Image name -> (width, height).
        given: Name -> known camera or None; the same object for images that share it.
        guess: Name -> camera guessed from EXIF.
        group: Name -> key; images with the same key and size share a guessed camera.
        sensor: Name -> the sensor of a rig that took it, or None. All images of a sensor, and no
            others, share one camera.

    Raises:
        UsageError: A given camera is for images of another size, or images of one sensor do not
            share a camera.
        DataError: COLMAP reads another image size from a file than this package does.
    """
    result = CameraAssignment()
    ids: dict[Any, int] = {}
    first: dict[str, str] = {}  # image of each sensor
    for name in sorted(sizes):
        known = given(name)
        if known is not None and (known.width, known.height) != sizes[name]:
            raise UsageError(
                f"{name}: the image is {sizes[name][0]} x {sizes[name][1]} pixels, but the given "
                f"camera is for {known.width} x {known.height}; resize the image or the camera"
            )
        own = sensor(name)
        key = (group(name), sizes[name], own) if known is None else ("given", id(known), own)
        if key not in ids:
            ids[key] = len(ids) + 1
            camera = pycolmap.Camera((known or guess(name)).todict())
            if (camera.width, camera.height) != sizes[name]:  # a guess: COLMAP saw another picture
                raise DataError(
                    f"{name}: the picture is {sizes[name][0]} x {sizes[name][1]} pixels, but "
                    f"COLMAP reads {camera.width} x {camera.height}; save it as JPEG or PNG"
                )
            camera.camera_id = ids[key]
            camera.has_prior_focal_length |= known is not None
            result.cameras[ids[key]] = camera
            if known is not None:
                result.known.add(ids[key])
        result.camera_ids[name] = ids[key]
        if own is not None:
            other = first.setdefault(own, name)
            if result.camera_ids[other] != ids[key]:
                raise UsageError(
                    f"{name} and {other}: are of one camera of a rig ({own!r}), but differ in size "
                    "or given intrinsics"
                )
    return result


def camera_models() -> list[str]:
    """Names of COLMAP's camera models, sorted."""
    return sorted(set(pycolmap.CameraModelId.__members__) - {"INVALID"})


def make_camera(model: str, params: Sequence[float], size: tuple[int, int]) -> Camera:
    """A camera from COLMAP's model name and parameters.

    Args:
        model: COLMAP's name, e.g. ``PINHOLE``.
        params: Parameters in COLMAP's order for the model.
        size: (width, height) of its images in pixels.

    Raises:
        UsageError: There is no such model, or it takes other parameters.
    """
    if model not in camera_models():
        raise UnknownNameError("camera model", model, camera_models())
    if not 0 < min(size) <= max(size) < 2**31:
        raise UsageError(f"{size[0]} x {size[1]} pixels is no size of a photo")
    camera = pycolmap.Camera(
        {"model": model, "width": size[0], "height": size[1], "params": list(params)}
    )
    if not camera.verify_params():
        raise UsageError(
            f"camera model {model} takes other parameters than the {len(params)} given: "
            f"{camera.params_info}"
        )
    reason = bad_intrinsics(camera)
    if reason:
        raise UsageError(f"camera model {model}: {reason}")
    return camera


def check_intrinsics(known: Intrinsics) -> None:
    """Raises UsageError if there can be no camera with these intrinsics."""
    make_camera(known.model, known.params, known.size)


def is_camera_model(name: str) -> bool:
    """Whether COLMAP has a camera model of this name."""
    return name in camera_models()


def intrinsics(camera: Camera) -> Intrinsics:
    """Intrinsics of a camera."""
    size = (camera.width, camera.height)
    return Intrinsics(model=camera.model.name, size=size, params=tuple(camera.params.tolist()))


def guess_camera(path: Path, model: str) -> Camera:
    """The camera that COLMAP infers from a photo's EXIF data, else with a focal length of 1.2 x the
    longest edge."""
    try:
        options = pycolmap.ImageReaderOptions({"camera_model": model})
        return pycolmap.infer_camera_from_image(path, options)
    except (ValueError, RuntimeError) as error:
        raise DataError(f"{path}: COLMAP cannot infer a camera ({error})") from error


def lacks_focal_length(camera: Camera) -> bool:
    """Whether it is of a fisheye lens whose focal length is a guess: COLMAP then finds no two-view
    geometry, from which it could not be recovered."""
    return bool(camera.model.name.endswith("FISHEYE") and not camera.has_prior_focal_length)


def pinhole_matrix(camera: Camera) -> NDArray[np.float64]:
    """(3, 3) calibration matrix. Raises UsageError for a camera with distortion."""
    if camera.model.name not in ("PINHOLE", "SIMPLE_PINHOLE"):
        raise UsageError(
            f"expected PINHOLE or SIMPLE_PINHOLE cameras, got {camera.model.name}; undistort the "
            "photos first (colmap image_undistorter)"
        )
    return np.asarray(camera.calibration_matrix(), np.float64)


def opencv_intrinsics(camera: Camera) -> dict[str, float]:
    """fl_x, fl_y, cx, cy, k1, k2, p1, p2 of a pinhole camera with no other distortion than these.

    Raises UsageError for other camera models (undistort the images first).
    """
    names = {"f": ("fl_x", "fl_y"), "fx": ("fl_x",), "fy": ("fl_y",), "k": ("k1",)}
    result: dict[str, float] = dict.fromkeys(("k1", "k2", "p1", "p2"), 0.0)
    for name, value in zip(camera.params_info.split(", "), camera.params, strict=True):
        for target in names.get(name, (name,)):
            if target not in ("fl_x", "fl_y", "cx", "cy", *result):
                raise UsageError(f"{camera.model.name}: nerfstudio's OPENCV model has no {name}")
            result[target] = float(value)
    return result
