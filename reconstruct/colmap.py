"""The only door to pycolmap: cameras, database, verification, mapping, models, SIFT.

pycolmap moves its API with every release; whatever it changes is mended here. Poses are
``cam_from_world``; keypoints are COLMAP pixels, which is what the whole package uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from numpy.typing import NDArray

from reconstruct.errors import DataError, ReconstructionError, UnknownNameError, UsageError
from reconstruct.types import ImageArray, ImagePair

if tuple(map(int, pycolmap.__version__.split(".")[:2])) < (4, 2):
    raise ImportError(
        f"reconstruct needs pycolmap >= 4.2, < 5 and found {pycolmap.__version__}: "
        "pip install 'pycolmap>=4.2,<5'"
    )

Reconstruction = pycolmap.Reconstruction
Camera = pycolmap.Camera


def set_verbosity(verbose: bool) -> None:
    """Let COLMAP's own log through to stderr, or only its errors."""
    pycolmap.logging.minloglevel = 0 if verbose else 2


# ------------------------------------------------------------------------------------- cameras


@dataclass(frozen=True, slots=True, eq=False)
class CameraAssignment:
    """Which camera took which image.

    cameras: camera id -> intrinsics; ids count from 1.
    camera_ids: image name -> camera id.
    known: ids of cameras whose intrinsics were given, and not guessed from EXIF.
    """

    cameras: dict[int, Camera] = field(default_factory=dict)
    camera_ids: dict[str, int] = field(default_factory=dict)
    known: set[int] = field(default_factory=set)

    def identity(self) -> list[Any]:
        """JSON-able: all that decides what COLMAP is told about the cameras."""
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
) -> CameraAssignment:
    """Cameras of images: the given one where there is one, else one guessed for each group.

    sizes: image name -> (width, height). given: name -> known camera, the same object for images
    that share it. guess: name -> camera from EXIF. group: images with the same key (and size)
    share a guessed camera.
    Raises UsageError if a given camera is not of its image's size.
    """
    result = CameraAssignment()
    ids: dict[Any, int] = {}
    for name in sorted(sizes):
        known = given(name)
        if known is not None and (known.width, known.height) != sizes[name]:
            raise UsageError(
                f"{name}: the image is {sizes[name][0]} x {sizes[name][1]} pixels, but the given "
                f"camera is for {known.width} x {known.height}; resize the image or the camera"
            )
        key = (group(name), sizes[name]) if known is None else ("given", id(known))
        if key not in ids:
            ids[key] = len(ids) + 1
            camera = pycolmap.Camera((known or guess(name)).todict())
            camera.camera_id = ids[key]
            camera.has_prior_focal_length |= known is not None
            result.cameras[ids[key]] = camera
            if known is not None:
                result.known.add(ids[key])
        result.camera_ids[name] = ids[key]
    return result


def make_camera(model: str, params: Sequence[float], size: tuple[int, int]) -> Camera:
    """A camera from COLMAP's model name and parameters. Raises UsageError if they do not fit."""
    valid = set(pycolmap.CameraModelId.__members__) - {"INVALID"}
    if model not in valid:
        raise UnknownNameError("camera model", model, valid)
    camera = pycolmap.Camera(
        {"model": model, "width": size[0], "height": size[1], "params": list(params)}
    )
    if not camera.verify_params():
        raise UsageError(
            f"camera model {model} takes other parameters than the {len(params)} given: "
            f"{camera.params_info}"
        )
    return camera


def guess_camera(path: Path, model: str) -> Camera:
    """The camera that COLMAP infers from a photo's EXIF data (or 1.2 x its longest edge)."""
    try:
        options = pycolmap.ImageReaderOptions({"camera_model": model})
        return pycolmap.infer_camera_from_image(path, options)
    except (ValueError, RuntimeError) as error:
        raise DataError(f"{path}: COLMAP cannot infer a camera ({error})") from error


# -------------------------------------------------------------------------------------- models


def read_model(path: Path) -> Reconstruction:
    """A COLMAP model folder, binary or text; images.txt and cameras.txt alone will do.

    Raises UsageError if there is no model.
    """
    kinds = [ext for ext in ("bin", "txt") if (path / f"images.{ext}").is_file()]
    if not kinds or not (path / f"cameras.{kinds[0]}").is_file():
        raise UsageError(
            f"{path}: no COLMAP model here (expected cameras and images, .bin or .txt)"
        )
    try:
        model = pycolmap.Reconstruction()
        (model.read_binary if kinds[0] == "bin" else model.read_text)(path)
    except (ValueError, RuntimeError, OSError) as error:
        raise UsageError(f"{path}: not a readable COLMAP model ({error})") from error
    return model


def model_cameras(model: Reconstruction) -> dict[str, Camera]:
    """Image name -> its camera."""
    return {image.name: model.cameras[image.camera_id] for image in model.images.values()}


def model_poses(model: Reconstruction) -> dict[str, NDArray[np.float64]]:
    """Name of every registered image -> (3, 4) cam_from_world."""
    images = [model.images[i] for i in model.reg_image_ids()]
    return {image.name: image.cam_from_world().matrix() for image in sorted(images, key=_name)}


def model_summary(model: Reconstruction) -> dict[str, float]:
    """Registered images, points, observations, mean track length, mean reprojection error."""
    return {
        "registered_images": model.num_reg_images(),
        "points": model.num_points3D(),
        "observations": model.compute_num_observations(),
        "mean_track_length": round(model.compute_mean_track_length(), 3),
        "mean_reprojection_error_px": round(model.compute_mean_reprojection_error(), 4),
    }


def align_centers(
    source: NDArray[np.float64], target: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Similarity (scale, (3, 3) rotation, (3,) translation) target_from_source, least squares.

    source, target: (N, 3) camera centres. Raises ReconstructionError if they do not fix one
    (fewer than three, or all on a line).
    """
    found = pycolmap.estimate_sim3d(source, target) if len(source) >= 3 else None
    if found is None:
        raise ReconstructionError(
            "three cameras that are not on a line are needed to align a model"
        )
    return float(found.scale), found.rotation.matrix(), found.translation


def opencv_intrinsics(camera: Camera) -> dict[str, float]:
    """fl_x, fl_y, cx, cy, k1, k2, p1, p2 of a pinhole camera with at most that distortion.

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


def _name(image: pycolmap.Image) -> str:
    return str(image.name)


# ------------------------------------------------------------------------------------ database


def write_database(
    path: Path,
    cameras: CameraAssignment,
    keypoints: Callable[[str], NDArray[np.float32]],
    matches: Iterable[tuple[ImagePair, NDArray[np.uint32]]],
) -> None:
    """A new COLMAP database with images, keypoints and unverified matches.

    keypoints: image name -> (N, 2) float32. matches: pairs with (M, 2) uint32 indices; pairs
    without a match are left out.
    """
    with pycolmap.Database.open(path) as database, pycolmap.DatabaseTransaction(database):
        for camera in cameras.cameras.values():
            database.write_camera(camera, use_camera_id=True)
            rig = pycolmap.Rig(rig_id=camera.camera_id)
            rig.add_ref_sensor(camera.sensor_id)
            database.write_rig(rig, use_rig_id=True)
        ids = {name: i for i, name in enumerate(sorted(cameras.camera_ids), 1)}
        for name, image_id in ids.items():
            camera_id = cameras.camera_ids[name]
            image = pycolmap.Image(name=name, camera_id=camera_id, image_id=image_id)
            database.write_image(image, use_image_id=True)
            frame = pycolmap.Frame(frame_id=image_id, rig_id=camera_id)
            frame.add_data_id(image.data_id)
            database.write_frame(frame, use_frame_id=True)
            database.write_keypoints(image_id, np.ascontiguousarray(keypoints(name), np.float32))
        for (first, second), rows in matches:
            if len(rows):
                database.write_matches(ids[first], ids[second], rows)


def verify_database(path: Path, *, max_error_px: float, min_inliers: int, seed: int) -> None:
    """Robust two-view geometry of every matched pair in the database (LO-RANSAC)."""
    options = pycolmap.TwoViewGeometryOptions()
    options.min_num_inliers = min_inliers
    options.ransac.max_error = max_error_px
    options.ransac.random_seed = seed
    pycolmap.geometric_verification(path, two_view_geometry_options=options)


def verified_matches(path: Path) -> dict[ImagePair, NDArray[np.uint32]]:
    """Pair of names -> (M, 2) inlier matches, for the pairs that have any, sorted."""
    with pycolmap.Database.open(path) as database:
        names = {image.image_id: image.name for image in database.read_all_images()}
        pair_ids, geometries = database.read_two_view_geometries()
    result: dict[ImagePair, NDArray[np.uint32]] = {}
    for pair_id, geometry in zip(pair_ids, geometries, strict=True):
        first, second = (names[i] for i in pycolmap.pair_id_to_image_pair(pair_id))
        rows = np.asarray(geometry.inlier_matches, np.uint32).reshape(-1, 2)
        if len(rows):
            pair = (first, second) if first <= second else (second, first)
            result[pair] = rows if pair[0] == first else rows[:, ::-1]
    return dict(sorted(result.items()))


def database_keypoints(path: Path) -> dict[str, NDArray[np.float32]]:
    """Image name -> (N, 2) keypoints."""
    with pycolmap.Database.open(path) as database:
        images = database.read_all_images()
        return {i.name: database.read_keypoints(i.image_id)[:, :2] for i in images}


# ------------------------------------------------------------------------------------- mapping


def map_images(
    method: str,
    database: Path,
    images: Path,
    scratch: Path,
    *,
    constant_cameras: set[int],
    min_model_size: int,
    seed: int,
    threads: int,
    options: Mapping[str, Any],
    registered: Callable[[], None] = lambda: None,
) -> list[Reconstruction]:
    """Structure from motion: the models found, the largest first.

    method: incremental, global or hierarchical. constant_cameras: ids whose intrinsics stay.
    options: further values for COLMAP's own options, by their (nested) names.
    registered: called after every image that incremental mapping adds.
    Raises ReconstructionError if COLMAP fails, UsageError for unknown options.
    """
    pycolmap.set_random_seed(seed)
    scratch.mkdir(parents=True, exist_ok=True)
    if method == "global":
        options_global = _global_options(constant_cameras, min_model_size, seed, threads, database)
        merge_options(options_global, options)
        models = pycolmap.global_mapping(database, images, scratch, options_global)
    else:
        incremental = incremental_options(constant_cameras, min_model_size, seed, threads)
        if method == "hierarchical":
            hierarchical = pycolmap.HierarchicalPipelineOptions()
            hierarchical.num_threads = threads
            hierarchical.incremental_options = incremental
            merge_options(hierarchical, options)
            models = pycolmap.hierarchical_mapping(database, images, scratch, hierarchical)
        else:
            merge_options(incremental, options)
            models = pycolmap.incremental_mapping(
                database, images, scratch, incremental, next_image_callback=registered
            )
    return sorted(models.values(), key=lambda m: (-m.num_reg_images(), -m.num_points3D()))


def incremental_options(
    constant_cameras: set[int], min_model_size: int, seed: int, threads: int
) -> pycolmap.IncrementalPipelineOptions:
    """COLMAP's incremental options with what this package decides."""
    options = pycolmap.IncrementalPipelineOptions()
    options.min_model_size = min_model_size
    options.constant_cameras = constant_cameras
    options.random_seed = seed
    options.num_threads = threads
    return options


def _global_options(
    constant_cameras: set[int], min_model_size: int, seed: int, threads: int, database: Path
) -> pycolmap.GlobalPipelineOptions:
    options = pycolmap.GlobalPipelineOptions()
    options.min_model_size = min_model_size
    options.random_seed = seed
    options.num_threads = threads
    if constant_cameras:
        with pycolmap.Database.open(database) as opened:
            if len(constant_cameras) < opened.num_cameras():
                raise UsageError(
                    "map.method: global cannot keep some cameras fixed and refine others; give "
                    "the intrinsics of all images, or use method: incremental"
                )
        options.mapper.bundle_adjustment.refine_focal_length = False
        options.mapper.bundle_adjustment.refine_extra_params = False
    return options


def merge_options(target: Any, values: Mapping[str, Any]) -> None:
    """Set nested COLMAP options by name. Raises UsageError naming what COLMAP refuses."""
    for name, value in values.items():
        if not hasattr(target, name):
            raise UsageError(f"map.options: {type(target).__name__} has no option {name!r}")
        if isinstance(value, Mapping):
            merge_options(getattr(target, name), value)
            continue
        try:
            setattr(target, name, value)
        except (TypeError, ValueError) as error:
            raise UsageError(f"map.options: {name} does not take {value!r}") from error


def triangulate(
    database: Path,
    images: Path,
    scratch: Path,
    poses: Reconstruction,
    *,
    seed: int,
    threads: int,
    options: Mapping[str, Any],
) -> Reconstruction:
    """Triangulate the database's matches from the poses and intrinsics of ``poses``, unchanged.

    Images are matched by name; those of ``poses`` that the database lacks are left out, and so
    are the database's images without a pose. Raises ReconstructionError if none is in both.
    """
    known = {image.name: image for image in poses.images.values() if image.has_pose}
    model = pycolmap.Reconstruction()
    with pycolmap.Database.open(database) as opened:
        for camera in opened.read_all_cameras():
            model.add_camera_with_trivial_rig(camera)
        for image in opened.read_all_images():
            if image.name in known:
                points = opened.read_keypoints(image.image_id)[:, :2].astype(np.float64)
                fresh = pycolmap.Image(
                    name=image.name,
                    keypoints=points,
                    camera_id=image.camera_id,
                    image_id=image.image_id,
                )
                pose = known[image.name].cam_from_world()
                model.add_image_with_trivial_frame(fresh, pose)
    if not model.num_reg_images():
        raise ReconstructionError("no image of the data set has a pose in the reference model")
    pipeline = incremental_options(set(model.cameras), 1, seed, threads)
    merge_options(pipeline, options)
    scratch.mkdir(parents=True, exist_ok=True)
    return pycolmap.triangulate_points(model, database, images, scratch, True, pipeline, False)


# ---------------------------------------------------------------------------------------- SIFT


class SiftExtractor:
    """COLMAP's SIFT with RootSIFT descriptors."""

    def __init__(self, *, max_keypoints: int, upright: bool, affine_shape: bool) -> None:
        options = pycolmap.FeatureExtractionOptions()
        options.use_gpu = False
        options.num_threads = 1
        options.sift.max_num_features = max_keypoints
        options.sift.upright = upright
        options.sift.estimate_affine_shape = affine_shape
        options.sift.normalization = pycolmap.Normalization.L1_ROOT
        self._extractor = pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu)

    def __call__(self, grey: ImageArray) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(N, 4) keypoints (x, y in COLMAP pixels, scale, orientation), (N, 128) unit vectors.

        grey: (H, W) uint8.
        """
        keypoints, descriptors = self._extractor.extract_from_uint8_array(grey)
        matrix = np.asarray(pycolmap.keypoints_to_matrix(keypoints), np.float32).reshape(-1, 4)
        values = np.asarray(descriptors.data, np.float32).reshape(-1, 128)
        norms = np.linalg.norm(values, axis=1, keepdims=True)
        return matrix, values / np.maximum(norms, 1e-12)
