"""The only door to pycolmap: cameras, database, verification, mapping, models, SIFT.

pycolmap moves its API with every release; whatever it changes is mended here. Poses are
``cam_from_world``; keypoints are COLMAP pixels, which is what the whole package uses.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from numpy.typing import NDArray

from reconstruct.errors import DataError, ReconstructionError, UnknownNameError, UsageError
from reconstruct.geometry import epipolar_errors_px, relative_pose
from reconstruct.types import ImageArray, ImagePair, Intrinsics
from reconstruct.workspace import reserve

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


def camera_models() -> list[str]:
    """Names of COLMAP's camera models, sorted."""
    return sorted(set(pycolmap.CameraModelId.__members__) - {"INVALID"})


def make_camera(model: str, params: Sequence[float], size: tuple[int, int]) -> Camera:
    """A camera from COLMAP's model name and parameters. Raises UsageError if they do not fit."""
    if model not in camera_models():
        raise UnknownNameError("camera model", model, camera_models())
    camera = pycolmap.Camera(
        {"model": model, "width": size[0], "height": size[1], "params": list(params)}
    )
    if not camera.verify_params():
        raise UsageError(
            f"camera model {model} takes other parameters than the {len(params)} given: "
            f"{camera.params_info}"
        )
    return camera


def is_camera_model(name: str) -> bool:
    """Whether COLMAP has a camera model of this name."""
    return name in camera_models()


def intrinsics(camera: Camera) -> Intrinsics:
    """What of a camera is no place."""
    size = (camera.width, camera.height)
    return Intrinsics(model=camera.model.name, size=size, params=tuple(camera.params.tolist()))


def guess_camera(path: Path, model: str) -> Camera:
    """The camera that COLMAP infers from a photo's EXIF data (or 1.2 x its longest edge)."""
    try:
        options = pycolmap.ImageReaderOptions({"camera_model": model})
        return pycolmap.infer_camera_from_image(path, options)
    except (ValueError, RuntimeError) as error:
        raise DataError(f"{path}: COLMAP cannot infer a camera ({error})") from error


# -------------------------------------------------------------------------------------- models


def check_model(path: Path) -> str:
    """``bin`` or ``txt``, the format of the COLMAP model in a folder.

    Raises UsageError if there is none.
    """
    for kind in ("bin", "txt"):
        if all((path / f"{part}.{kind}").is_file() for part in ("cameras", "images")):
            return kind
    raise UsageError(f"{path}: no COLMAP model here (expected cameras and images, .bin or .txt)")


def read_model(path: Path) -> Reconstruction:
    """A COLMAP model folder, binary or text; images.txt and cameras.txt alone will do.

    Raises UsageError if there is no model.
    """
    kind = check_model(path)
    model = pycolmap.Reconstruction()
    try:
        with _with_points(path, kind) as folder:
            (model.read_binary if kind == "bin" else model.read_text)(folder)
        if kind == "txt":  # where COLMAP cuts names at their first space
            for image_id, name in _names_in_text(path / "images.txt").items():
                model.images[image_id].name = name
    except (ValueError, RuntimeError, OSError, IndexError, MemoryError) as error:
        raise UsageError(f"{path}: not a readable COLMAP model ({error})") from error
    return model


def _names_in_text(path: Path) -> dict[int, str]:
    """Image id -> name in an images.txt: two lines an image, the name after nine numbers."""
    names = {}
    lines = iter(path.read_text(encoding="utf-8").splitlines())
    for line in lines:
        if line.strip() and not line.startswith("#"):
            image_id, *_, name = line.strip().split(" ", 9)
            names[int(image_id)] = name
            next(lines, None)  # its observations
    return names


@contextlib.contextmanager
def _with_points(path: Path, kind: str) -> Iterator[Path]:
    """The model's folder, or a copy with an empty list of points, on which COLMAP insists."""
    if (path / f"points3D.{kind}").is_file():
        yield path
        return
    with tempfile.TemporaryDirectory() as copy:
        for file in path.glob(f"*.{kind}"):
            shutil.copy(file, copy)
        (Path(copy) / f"points3D.{kind}").write_bytes(bytes(8) if kind == "bin" else b"")
        yield Path(copy)


def write_model(model: Reconstruction, folder: Path) -> None:
    """Write a binary model to a new folder. Raises OSError if the disk has no room for it."""
    folder.mkdir()
    # COLMAP does not notice a full disk. The terms are its records' sizes, rounded up.
    size = sum(24 * image.num_points2D() + 1000 for image in model.images.values())
    size += 60 * model.num_points3D() + 8 * model.compute_num_observations()
    reserve(folder, size + 1000 * (model.num_cameras() + 1))
    model.write(folder)


def model_cameras(model: Reconstruction) -> dict[str, Camera]:
    """Image name -> its camera."""
    return {image.name: model.cameras[image.camera_id] for image in model.images.values()}


def model_poses(model: Reconstruction) -> dict[str, NDArray[np.float64]]:
    """Name of every registered image -> (3, 4) cam_from_world."""
    images = [model.images[i] for i in model.reg_image_ids()]
    return {image.name: image.cam_from_world().matrix() for image in sorted(images, key=_name)}


def model_points(model: Reconstruction) -> NDArray[np.float64]:
    """(P, 3) positions of the 3D points, in the order of their ids."""
    rows = [model.points3D[i].xyz for i in sorted(model.points3D)]
    return np.array(rows, np.float64).reshape(-1, 3)


def model_summary(model: Reconstruction) -> dict[str, float]:
    """Registered images, points, observations, mean track length, mean reprojection error."""
    return {
        "registered_images": model.num_reg_images(),
        "points": model.num_points3D(),
        "observations": model.compute_num_observations(),
        "mean_track_length": round(model.compute_mean_track_length(), 3),
        "mean_reprojection_error_px": round(model.compute_mean_reprojection_error(), 4),
    }


def model_folder(path: Path) -> Path:
    """The COLMAP model that a path means: itself, or ``sparse/`` of a finished output folder."""
    return path / "sparse" if (path / "sparse").is_dir() else path


def build_model(
    images: Sequence[tuple[str, Intrinsics, NDArray[Any], NDArray[np.float64], NDArray[np.int64]]],
    xyz: NDArray[np.float64],
) -> Reconstruction:
    """A model from known poses and tracks.

    images: name, intrinsics, (3, 4) cam_from_world, (N, 2) keypoints and (N,) the point of each;
    photos of equal intrinsics share a camera. xyz: (P, 3) points; those seen less than twice are
    left out.
    """
    model = pycolmap.Reconstruction()
    tracks = [pycolmap.Track() for _ in xyz]
    ids: dict[Intrinsics, int] = {}
    for image_id, (name, known, pose, keypoints, points) in enumerate(images, 1):
        if known not in ids:
            ids[known] = len(ids) + 1
            camera = make_camera(known.model, known.params, known.size)
            camera.camera_id = ids[known]
            model.add_camera_with_trivial_rig(camera)
        image = pycolmap.Image(
            name=name, keypoints=keypoints, camera_id=ids[known], image_id=image_id
        )
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose))
        for index, point in enumerate(points):
            tracks[point].add_element(image_id, index)
    for position, track in zip(xyz, tracks, strict=True):
        if track.length() >= 2:
            model.add_point3D(position, track)
    return model


class Tracks:
    """Which 3D point each keypoint of a model's images sees, and where the points are."""

    def __init__(self, model: Reconstruction) -> None:
        self._model = model
        self._images = {model.images[i].name: model.images[i] for i in model.reg_image_ids()}
        self._ids: dict[str, NDArray[np.int64]] = {}

    @property
    def names(self) -> list[str]:
        """Sorted names of the registered images."""
        return sorted(self._images)

    def points(self, name: str) -> NDArray[np.int64]:
        """(N,) id of the 3D point of each keypoint of an image, -1 where there is none."""
        if name not in self._ids:
            image = self._images[name]
            ids = np.full(image.num_points2D(), -1, np.int64)
            for index in image.get_observation_point2D_idxs():
                ids[index] = image.point2D(index).point3D_id
            self._ids[name] = ids
        return self._ids[name]

    def positions(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """(N, 3) positions of points by their ids."""
        rows = [self._model.points3D[int(i)].xyz for i in ids]
        return np.array(rows, np.float64).reshape(-1, 3)


def observations(model: Reconstruction) -> dict[str, dict[int, tuple[float, float]]]:
    """Name of every registered image -> id of each 3D point that it observes -> the position."""
    result: dict[str, dict[int, tuple[float, float]]] = {}
    for image_id in model.reg_image_ids():
        image = model.images[image_id]
        points = (image.point2D(index) for index in image.get_observation_point2D_idxs())
        result[_name(image)] = {p.point3D_id: (float(p.xy[0]), float(p.xy[1])) for p in points}
    return result


def points_by_id(model: Reconstruction) -> dict[int, NDArray[np.float64]]:
    """Id -> (3,) position of every 3D point."""
    return {int(i): np.asarray(model.points3D[i].xyz, np.float64) for i in sorted(model.points3D)}


def pinhole_matrix(camera: Camera) -> NDArray[np.float64]:
    """(3, 3) calibration matrix. Raises UsageError for a camera with distortion."""
    if camera.model.name not in ("PINHOLE", "SIMPLE_PINHOLE"):
        raise UsageError(
            f"expected PINHOLE or SIMPLE_PINHOLE cameras, got {camera.model.name}; undistort the "
            "photos first (colmap image_undistorter)"
        )
    return np.asarray(camera.calibration_matrix(), np.float64)


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


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[pycolmap.Database]:
    try:
        with pycolmap.Database.open(path) as database:
            yield database
    except RuntimeError as error:  # the one kind of error that its SQLite layer has
        raise OSError(f"{path}: COLMAP cannot read or write this database ({error})") from error


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
    # No DatabaseTransaction: it ends the process where its last write fails.
    with _opened(path) as database:
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
    """Robust two-view geometry of every matched pair in the database (LO-RANSAC).

    Raises OSError if the disk has no room for it.
    """
    reserve(path.parent, 2 * path.stat().st_size)  # COLMAP would end the process
    options = pycolmap.TwoViewGeometryOptions()
    options.min_num_inliers = min_inliers
    options.ransac.max_error = max_error_px
    options.ransac.random_seed = seed
    pycolmap.geometric_verification(path, two_view_geometry_options=options)


def verify_with_poses(
    path: Path,
    poses: Mapping[str, NDArray[np.float64]],
    *,
    max_error_px: float,
    min_inliers: int,
) -> None:
    """Keep the matches that agree with known (3, 4) cam_from_world; pairs without poses have none.

    max_error_px: largest distance from an epipolar line, in either image.
    """
    with _opened(path) as database:
        cameras = {camera.camera_id: camera for camera in database.read_all_cameras()}
        images = {image.image_id: image for image in database.read_all_images()}
        for pair_id, rows in zip(*database.read_all_matches(), strict=True):
            pair = [images[i] for i in pycolmap.pair_id_to_image_pair(pair_id)]
            if not all(image.name in poses for image in pair):
                continue
            owned = [cameras[image.camera_id] for image in pair]
            points = [database.read_keypoints(i.image_id)[:, :2].astype(np.float64) for i in pair]
            rays = [
                camera.cam_from_img(xy[own])
                for camera, xy, own in zip(owned, points, rows.T, strict=True)
            ]
            pose = relative_pose(*(poses[image.name] for image in pair))
            focal = (owned[0].mean_focal_length(), owned[1].mean_focal_length())
            kept = rows[epipolar_errors_px(pose, rays[0], rays[1], focal) <= max_error_px]
            if len(kept) >= min_inliers:
                geometry = pycolmap.TwoViewGeometry()
                geometry.config = pycolmap.TwoViewGeometryConfiguration.CALIBRATED
                geometry.cam2_from_cam1 = pycolmap.Rigid3d(pose)
                geometry.inlier_matches = kept
                database.write_two_view_geometry(pair[0].image_id, pair[1].image_id, geometry)


def verified_matches(path: Path) -> dict[ImagePair, NDArray[np.uint32]]:
    """Pair of names -> (M, 2) inlier matches, for the pairs that have any, sorted."""
    with _opened(path) as database:
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
    with _opened(path) as database:
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
        with _opened(database) as opened:
            if len(constant_cameras) < opened.num_cameras():
                raise UsageError(
                    "map.method: global cannot keep some cameras fixed and refine others; give "
                    "the intrinsics of all images, or use method: incremental"
                )
        options.mapper.bundle_adjustment.refine_focal_length = False
        options.mapper.bundle_adjustment.refine_extra_params = False
    return options


def check_options(method: str, values: Mapping[str, Any]) -> None:
    """Raises UsageError if COLMAP's options for a method of mapping do not take ``values``."""
    kinds = {
        "global": pycolmap.GlobalPipelineOptions,
        "hierarchical": pycolmap.HierarchicalPipelineOptions,
    }
    merge_options(kinds.get(method, pycolmap.IncrementalPipelineOptions)(), values)


def merge_options(target: Any, values: Mapping[str, Any]) -> None:
    """Set nested COLMAP options by name. Raises UsageError naming what COLMAP refuses."""
    for name, value in values.items():
        if not hasattr(target, name):
            raise UsageError(f"options: {type(target).__name__} has no option {name!r}")
        if isinstance(value, Mapping):
            merge_options(getattr(target, name), value)
            continue
        try:
            setattr(target, name, value)
        except (AttributeError, TypeError, ValueError) as error:
            raise UsageError(f"options: {name} does not take {value!r}") from error


def adjust_robustly(
    model: Reconstruction, loss_px: float, constant_cameras: set[int], threads: int
) -> None:
    """Bundle adjustment of a whole model in place, under a Cauchy loss of scale ``loss_px``.

    Intrinsics of ``constant_cameras`` (ids) stay.
    """
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = loss_px
    options.ceres.solver_options.num_threads = threads
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in model.reg_image_ids():
        config.add_image(image_id)
    for camera_id in constant_cameras & set(model.cameras):
        config.set_constant_cam_intrinsics(camera_id)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()
    # A robust loss lets go of what does not fit, even to infinity: COLMAP's own limits remove it.
    limits = pycolmap.IncrementalMapperOptions()
    manager = pycolmap.ObservationManager(model)
    manager.filter_all_points3D(limits.filter_max_reproj_error, limits.filter_min_tri_angle)
    model.update_point_3d_errors()


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
    with _opened(database) as opened:
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
    found = pycolmap.triangulate_points(model, database, images, scratch, True, pipeline, False)
    for image in found.images.values():  # adjusting the points rounds the poses' last digits
        image.frame.set_cam_from_world(image.camera_id, known[image.name].cam_from_world())
    return found


# -------------------------------------------------------------------------------- single images


def estimate_pose(
    points2d: NDArray[np.float64],
    points3d: NDArray[np.float64],
    camera: Camera,
    *,
    max_error_px: float,
    max_trials: int,
    refine_focal: bool,
    seed: int,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64] | None, Camera] | None:
    """Absolute pose by LO-RANSAC and refinement; None if none is found.

    points2d: (M, 2) COLMAP pixels. points3d: (M, 3). refine_focal: estimate the focal length too.
    Returns (3, 4) cam_from_world, (M,) inliers, (6, 6) covariance (rotation in the tangent space,
    then translation) or None where it does not exist, and the camera as refined.
    """
    estimation = pycolmap.AbsolutePoseEstimationOptions()
    estimation.estimate_focal_length = refine_focal
    estimation.ransac.max_error = max_error_px
    estimation.ransac.max_num_trials = max_trials
    estimation.ransac.random_seed = seed
    refinement = pycolmap.AbsolutePoseRefinementOptions()
    refinement.refine_focal_length = refine_focal
    refined = pycolmap.Camera(camera.todict())  # it is changed in place
    found = pycolmap.estimate_and_refine_absolute_pose(
        points2d, points3d, refined, estimation, refinement, return_covariance=True
    )
    if found is None:
        return None
    covariance = found.get("covariance")
    inliers = np.asarray(found["inlier_mask"], np.bool_)
    return found["cam_from_world"].matrix(), inliers, covariance, refined


def verify_pair(
    camera0: Camera,
    points0: NDArray[np.float64],
    camera1: Camera,
    points1: NDArray[np.float64],
    matches: NDArray[np.uint32],
    *,
    max_error_px: float,
    min_inliers: int,
    seed: int,
) -> NDArray[np.uint32]:
    """The (M, 2) ``matches`` of two images that agree with one two-view geometry, maybe none."""
    options = pycolmap.TwoViewGeometryOptions()
    options.min_num_inliers = min_inliers
    options.ransac.max_error = max_error_px
    options.ransac.random_seed = seed
    found = pycolmap.estimate_two_view_geometry(
        camera0, points0, camera1, points1, matches, options
    )
    return np.asarray(found.inlier_matches, np.uint32).reshape(-1, 2)


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
