"""From a database to a model: mapping, triangulation, bundle adjustment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from reconstruct.colmap.database import opened
from reconstruct.colmap.gps import Prior, pose_priors
from reconstruct.colmap.models import Reconstruction
from reconstruct.colmap.rigs import has_rigs, rig_ids
from reconstruct.config import shown
from reconstruct.errors import EstimationError, UsageError

MIN_OBSERVATIONS = 10
"""An image that observes fewer points loses its pose: COLMAP's limit during mapping."""


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
    pixel_scale: float = 1.0,
    prior_positions: bool = False,
    constant_rigs: bool = False,
    registered: Callable[[], None] = lambda: None,
) -> list[Reconstruction]:
    """Structure from motion: the models, the largest first.

    Args:
        method: ``incremental``, ``global`` or ``hierarchical``.
        database: COLMAP database with verified matches.
        images: Folder to which the image names are relative.
        scratch: Folder for temporary files.
        constant_cameras: Ids of cameras whose intrinsics stay as they are.
        min_model_size: Smallest number of images of a model.
        seed: Seed of RANSAC.
        threads: Number of threads.
        options: Further values for COLMAP's options, by their (nested) names.
        pixel_scale: Factor for COLMAP's own thresholds in pixels.
        prior_positions: Whether adjustments keep to the database's positions of cameras, under a
            robust loss; global mapping does not.
        constant_rigs: Whether the poses of cameras in their rigs stay as they are.
        registered: Called after every image that incremental mapping adds.

    Raises:
        EstimationError: COLMAP fails.
        UsageError: An option is unknown.
    """
    pycolmap.set_random_seed(seed)
    scratch.mkdir(parents=True, exist_ok=True)
    if method == "global":
        options_global = _global_options(constant_cameras, min_model_size, seed, threads, database)
        if constant_rigs:
            options_global.mapper.refine_sensor_from_rig = False
            options_global.mapper.bundle_adjustment.refine_sensor_from_rig = False
        merge_options(options_global, options)
        models = pycolmap.global_mapping(database, images, scratch, options_global)
    else:
        incremental = incremental_options(constant_cameras, min_model_size, seed, threads)
        if constant_rigs:
            incremental.constant_rigs = rig_ids(database)
        incremental.use_prior_position = prior_positions
        incremental.use_robust_loss_on_prior_position = prior_positions
        merge_options(incremental, pixel_options(pixel_scale))
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


def pixel_options(scale: float) -> dict[str, dict[str, float]]:
    """COLMAP's thresholds in pixels for incremental mapping, times ``scale``.

    COLMAP's values suit keypoints that were found in photos as they are stored; an error of one
    pixel in a photo that was shrunk for the extractor is several in the photo. (Global mapping has
    its thresholds as angles.)
    """
    defaults = pycolmap.IncrementalPipelineOptions()
    names = {
        "mapper": ("init_max_error", "abs_pose_max_error", "filter_max_reproj_error"),
        "triangulation": ("complete_max_reproj_error", "merge_max_reproj_error"),
    }
    return {
        part: {name: scale * getattr(getattr(defaults, part), name) for name in thresholds}
        for part, thresholds in names.items()
    }


def incremental_options(
    constant_cameras: set[int], min_model_size: int, seed: int, threads: int
) -> pycolmap.IncrementalPipelineOptions:
    """COLMAP's options for incremental mapping, with the values that this package decides.

    Args:
        constant_cameras: Ids of cameras whose intrinsics stay as they are.
        min_model_size: Smallest number of images of a model.
        seed: Seed of RANSAC.
        threads: Number of threads.
    """
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
        with opened(database) as contents:
            if len(constant_cameras) < contents.num_cameras():
                raise UsageError(
                    "map.method: global cannot keep some cameras fixed and refine others; give "
                    "the intrinsics of all images, or use method: incremental"
                )
        options.mapper.bundle_adjustment.refine_focal_length = False
        options.mapper.bundle_adjustment.refine_extra_params = False
    return options


def check_options(method: str, values: Mapping[str, Any]) -> None:
    """Raise UsageError if COLMAP's options for a mapping method do not take ``values``."""
    kinds = {
        "global": pycolmap.GlobalPipelineOptions,
        "hierarchical": pycolmap.HierarchicalPipelineOptions,
    }
    options = kinds.get(method, pycolmap.IncrementalPipelineOptions)()
    merge_options(options, values)
    if hasattr(options, "check") and not options.check():  # COLMAP's own message is on stderr
        raise UsageError(f"map.options: COLMAP refuses these values: {shown(dict(values))}")


def merge_options(target: Any, values: Mapping[str, Any]) -> None:
    """Set nested COLMAP options by name. Raises UsageError naming what COLMAP rejects."""
    for name, value in values.items():
        if not isinstance(name, str) or not hasattr(target, name):
            raise UsageError(f"options: {type(target).__name__} has no option {shown(name)}")
        if isinstance(value, Mapping):
            merge_options(getattr(target, name), value)
            continue
        try:
            setattr(target, name, value)
        except (AttributeError, OverflowError, TypeError, ValueError) as error:
            raise UsageError(f"options: {name} does not take {shown(value)}") from error


def adjust_robustly(
    model: Reconstruction,
    loss_px: float,
    constant_cameras: set[int],
    threads: int,
    pixel_scale: float = 1.0,
    positions: Mapping[str, Prior] | None = None,
    constant_rigs: bool = False,
) -> None:
    """Bundle adjustment of a whole model, in place, under a Cauchy loss.

    Args:
        model: The model to adjust.
        loss_px: Scale of the loss.
        constant_cameras: Ids of cameras whose intrinsics stay as they are.
        threads: Number of threads.
        pixel_scale: Factor for ``loss_px`` and for COLMAP's own thresholds in pixels.
        positions: Image name -> measured position of its camera, in the frame of the model, to
            which it keeps as far as its deviation asks; ones far off count little. None: none are
            known, and the model stays in its frame.
        constant_rigs: Whether the poses of cameras in their rigs stay as they are.
    """
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = pixel_scale * loss_px
    options.ceres.solver_options.num_threads = threads
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in model.reg_image_ids():
        config.add_image(image_id)
    for camera_id in constant_cameras & set(model.cameras):
        config.set_constant_cam_intrinsics(camera_id)
    if constant_rigs:
        for rig in model.rigs.values():
            for sensor_id in rig.non_ref_sensors:
                config.set_constant_sensor_from_rig_pose(sensor_id)
    if positions:
        measured = pycolmap.PosePriorBundleAdjustmentOptions()
        measured.ceres.prior_position_loss_function_type = pycolmap.LossFunctionType.CAUCHY
        measured.alignment_ransac.random_seed = 0
        priors = pose_priors(model, positions)
        pycolmap.create_pose_prior_bundle_adjuster(options, measured, config, priors, model).solve()
    elif constant_rigs and has_rigs(model):  # which say how large the model is
        config.set_constant_rig_from_world_pose(min(model.reg_frame_ids()))
        pycolmap.create_default_bundle_adjuster(options, config, model).solve()
    else:
        config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
        pycolmap.create_default_bundle_adjuster(options, config, model).solve()
    # A robust loss lets go of what does not fit, even to infinity: COLMAP's own limits remove it.
    limits = pycolmap.IncrementalMapperOptions()
    manager = pycolmap.ObservationManager(model)
    max_error_px = pixel_scale * limits.filter_max_reproj_error
    manager.filter_all_points3D(max_error_px, limits.filter_min_tri_angle)
    model.update_point_3d_errors()


def drop_unfounded_images(model: Reconstruction) -> list[str]:
    """Remove the poses of images that hardly any point supports, in place; returns their names.

    COLMAP's mapper does so while it grows a model, but does not look at what its last adjustment
    leaves: an image may end without points, or with a negative focal length.
    """
    limits = pycolmap.IncrementalMapperOptions()
    manager = pycolmap.ObservationManager(model)
    dropped: list[str] = []
    while frames := manager.filter_frames(
        limits.min_focal_length_ratio,
        limits.max_focal_length_ratio,
        limits.max_extra_param,
        MIN_OBSERVATIONS,
    ):
        for frame_id in frames:
            ids = model.frame(frame_id).image_ids
            dropped += [model.image(each.id).name for each in ids]
            manager.deregister_frame(frame_id)
    return sorted(dropped)


def triangulate(
    database: Path,
    images: Path,
    scratch: Path,
    poses: Reconstruction,
    *,
    seed: int,
    threads: int,
    options: Mapping[str, Any],
    pixel_scale: float = 1.0,
) -> Reconstruction:
    """Triangulate the database's matches from known poses and intrinsics, which stay as they are.

    Images are matched by name; those of ``poses`` that the database lacks are left out, and so are
    the database's images without a pose.

    Args:
        database: COLMAP database with verified matches.
        images: Folder to which the image names are relative.
        scratch: Folder for temporary files.
        poses: Model with the poses and intrinsics.
        seed: Seed of RANSAC.
        threads: Number of threads.
        options: Further values for COLMAP's options, by their (nested) names.
        pixel_scale: Factor for COLMAP's own thresholds in pixels.

    Raises:
        EstimationError: No image is in both.
    """
    known = {image.name: image for image in poses.images.values() if image.has_pose}
    model = pycolmap.Reconstruction()
    with opened(database) as contents:
        for camera in contents.read_all_cameras():
            model.add_camera_with_trivial_rig(camera)
        for image in contents.read_all_images():
            if image.name in known:
                points = contents.read_keypoints(image.image_id)[:, :2].astype(np.float64)
                fresh = pycolmap.Image(
                    name=image.name,
                    keypoints=points,
                    camera_id=image.camera_id,
                    image_id=image.image_id,
                )
                pose = known[image.name].cam_from_world()
                model.add_image_with_trivial_frame(fresh, pose)
    if not model.num_reg_images():
        raise EstimationError("no image of the data set has a pose in the reference model")
    pipeline = incremental_options(set(model.cameras), 1, seed, threads)
    merge_options(pipeline, pixel_options(pixel_scale))
    merge_options(pipeline, options)
    scratch.mkdir(parents=True, exist_ok=True)
    result = pycolmap.triangulate_points(model, database, images, scratch, True, pipeline, False)
    for image in result.images.values():  # adjusting the points rounds the poses' last digits
        image.frame.set_cam_from_world(image.camera_id, known[image.name].cam_from_world())
    return result
