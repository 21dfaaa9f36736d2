"""The camera of each photo: given intrinsics, or COLMAP's guess from EXIF."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Literal

from PIL import ExifTags
from pydantic import AfterValidator, BeforeValidator, model_validator

from reconstruct import colmap
from reconstruct.config import Section, tuple_from_list
from reconstruct.datasets import Dataset
from reconstruct.errors import ImageError, UsageError, suggestion
from reconstruct.fingerprints import tree_hash
from reconstruct.images import opened_exif


def _known(model: str) -> str:
    if model not in colmap.camera_models():
        raise ValueError(f"unknown model {model!r}{suggestion(model, colmap.camera_models())}")
    return model


class CameraSpec(Section):
    """One camera for all images."""

    model: Annotated[str, AfterValidator(_known)]
    """COLMAP's name: SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL, OPENCV ..."""
    params: Annotated[tuple[float, ...], BeforeValidator(tuple_from_list)]
    """COLMAP's parameters in its order, e.g. fx, fy, cx, cy for PINHOLE, in pixels."""

    @model_validator(mode="after")
    def _check(self) -> CameraSpec:
        try:
            colmap.make_camera(self.model, self.params, (1, 1))
        except UsageError as error:
            raise ValueError(str(error)) from error
        return self


class CamerasConfig(Section):
    """Settings about cameras that every data set of photos has."""

    cameras: str | CameraSpec | None = None
    """Known intrinsics: a COLMAP model folder (images by name), or one camera for all as
    ``{model: PINHOLE, params: [fx, fy, cx, cy]}``. null: from EXIF, as COLMAP infers them."""
    camera_sharing: Literal["image", "folder", "single", "exif"] = "image"
    """Which photos share a guessed camera (only photos of one size do). exif: those of one make,
    model, lens and focal length by their EXIF data; photos without them share none."""
    camera_model: Annotated[str, AfterValidator(_known)] = "SIMPLE_RADIAL"
    """COLMAP's camera model of guessed cameras."""

    has_points: ClassVar[bool] = False
    """Whether the images have depth or scans: the data set is then a map itself."""

    def load(self, scratch: Path) -> Dataset:
        """The data set; ``scratch`` is a folder for what is made of the data.

        Raises UsageError for missing folders, DataError if there is no image.
        """
        raise NotImplementedError(type(self).__name__)


def assign(
    config: CamerasConfig, dataset: Dataset, sizes: Mapping[str, tuple[int, int]]
) -> colmap.CameraAssignment:
    """The cameras of images; a query with intrinsics has these.

    Args:
        config: Settings.
        dataset: The data set.
        sizes: Image name -> (width, height).

    Raises:
        UsageError: A given camera is for images of another size.
    """
    return colmap.assign_cameras(
        sizes,
        given=_given(config, dataset, sizes),
        guess=lambda name: colmap.guess_camera(dataset.path(name), config.camera_model),
        group=lambda name: _group(name, config.camera_sharing, dataset),
        sensor=lambda name: dataset.rigs.sensor(name) if dataset.rigs is not None else None,
    )


def check(config: CamerasConfig, dataset: Dataset) -> None:
    """Check that the given intrinsics exist. Raises UsageError if not."""
    folder = _folder(config, dataset)
    if folder is not None:
        colmap.check_model(folder)


def identity(config: CamerasConfig, dataset: Dataset) -> list[Any]:
    """All that decides the cameras, beside the images themselves, as JSON types."""
    folder, settings = _folder(config, dataset), config.identity()
    shared = {name: settings[name] for name in CamerasConfig.model_fields}
    if isinstance(config.cameras, str):
        del shared["cameras"]  # its content counts, not its place
    return [shared, tree_hash(folder) if folder else None]


def identities(
    config: CamerasConfig,
    dataset: Dataset,
    sizes: Mapping[str, tuple[int, int]],
    contents: Mapping[str, str],
) -> dict[str, Any]:
    """What decides the camera of each image, so that one more photo changes no other's.

    Args:
        config: How cameras are given or shared.
        dataset: The data set.
        sizes: Image name -> (width, height).
        contents: Image name -> fingerprint that changes with the image's content.

    Returns:
        Image name -> JSON-able: the given intrinsics, or from which photo's EXIF they are guessed.
    """
    given = _given(config, dataset, sizes)
    first: dict[Any, str] = {}  # the photo of a group whose EXIF counts
    result: dict[str, Any] = {}
    for name in sorted(sizes):
        camera = given(name)
        if camera is not None:
            size = [camera.width, camera.height]
            result[name] = ["given", camera.model.name, size, camera.params.tolist()]
        else:
            key = (_group(name, config.camera_sharing, dataset), sizes[name])
            first.setdefault(key, contents[name])
            result[name] = ["guessed", config.camera_model, first[key]]
    return result


def _folder(config: CamerasConfig, dataset: Dataset) -> Path | None:
    if isinstance(config.cameras, str):
        return Path(config.cameras)
    return dataset.cameras if config.cameras is None else None


def _given(
    config: CamerasConfig, dataset: Dataset, sizes: Mapping[str, tuple[int, int]]
) -> Callable[[str], colmap.Camera | None]:
    queries = {
        query.name: colmap.make_camera(
            query.intrinsics.model, query.intrinsics.params, query.intrinsics.size
        )
        for query in dataset.queries
        if query.intrinsics is not None and query.name in sizes
    }
    others = _given_to_all(config, dataset, sizes)
    if dataset.rigs is None:
        return lambda name: queries.get(name) or others(name)
    mounted: dict[tuple[str | None, tuple[int, int]], colmap.Camera | None] = {}
    for name in sizes:  # one object a sensor: its photos share it
        key = dataset.rigs.sensor(name), sizes[name]
        if key not in mounted:
            mounted[key] = dataset.rigs.camera(name, sizes[name])
    sensor = dataset.rigs.sensor
    return lambda name: (
        queries.get(name) or mounted.get((sensor(name), sizes[name])) or others(name)
    )


def _given_to_all(
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


def exif_camera(path: Path) -> str | None:
    """The camera, lens and focal length that a photo's EXIF data name; None if they do not name a
    model and a focal length."""
    tags = ExifTags.Base
    try:
        with opened_exif(path) as found:
            inner = found.get_ifd(ExifTags.IFD.Exif)
            values = [found.get(tags.Make), found.get(tags.Model)]
            values += [inner.get(tags.LensMake), inner.get(tags.LensModel)]
            focal = [inner.get(tags.FocalLength), inner.get(tags.FocalLengthIn35mmFilm)]
            if not values[1] or not any(focal):
                return None
            texts = [str(value or "").strip("\0 ") for value in values]
            return "|".join([*texts, *(f"{float(value or 0):.3f}" for value in focal)])
    except ImageError:  # broken EXIF data name no camera
        return None


def _group(name: str, sharing: str, dataset: Dataset) -> str:
    sensor = dataset.rigs.sensor(name) if dataset.rigs is not None else None
    if sensor is not None:
        return sensor
    if sharing == "exif":
        return exif_camera(dataset.path(name)) or name
    folder = str(PurePosixPath(name).parent)
    return {"image": name, "folder": folder, "single": ""}[sharing]
