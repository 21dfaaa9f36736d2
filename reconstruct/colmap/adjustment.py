"""Bundle adjustment of a finished model, and what it leaves without support."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import pycolmap

from reconstruct.colmap.gps import Prior, pose_priors, transform_model
from reconstruct.colmap.models import Reconstruction
from reconstruct.colmap.rigs import has_rigs, rig_size

MIN_OBSERVATIONS = 10
"""An image that observes fewer points loses its pose: COLMAP's limit during mapping."""


def adjust_robustly(
    model: Reconstruction,
    loss_px: float,
    constant_cameras: set[int],
    threads: int,
    pixel_scale: float = 1.0,
    constant_poses: Collection[str] = (),
    positions: Mapping[str, Prior] | None = None,
    constant_rigs: bool = False,
    refine_rigs: bool = False,
) -> None:
    """Bundle adjustment of a whole model, in place, under a Cauchy loss.

    Args:
        model: The model to adjust.
        loss_px: Scale of the loss.
        constant_cameras: Ids of cameras whose intrinsics stay as they are.
        threads: Number of threads.
        pixel_scale: Factor for ``loss_px`` and for COLMAP's own thresholds in pixels.
        constant_poses: Names of images whose poses stay as they are.
        positions: Image name -> measured position of its camera, in the frame of the model, to
            which it is held by its standard deviation; outliers count little. None: none are known,
            and the model stays in its frame.
        constant_rigs: Whether the poses of cameras in their rigs stay as they are.
        refine_rigs: Whether constant rigs are so in size alone: the poses in them are refined.
    """
    size = rig_size(model)
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = pixel_scale * loss_px
    options.ceres.solver_options.num_threads = threads
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in model.reg_image_ids():
        config.add_image(image_id)
        if model.images[image_id].name in constant_poses:
            config.set_constant_rig_from_world_pose(model.images[image_id].frame_id)
    for camera_id in constant_cameras & set(model.cameras):
        config.set_constant_cam_intrinsics(camera_id)
    if constant_rigs and not refine_rigs:
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
    if refine_rigs:
        transform_model(model, size / rig_size(model), np.eye(3), np.zeros(3))
    # Under a robust loss, points that do not fit may drift off, even to infinity: COLMAP's own
    # limits remove them.
    limits = pycolmap.IncrementalMapperOptions()
    manager = pycolmap.ObservationManager(model)
    max_error_px = pixel_scale * limits.filter_max_reproj_error
    manager.filter_all_points3D(max_error_px, limits.filter_min_tri_angle)
    model.update_point_3d_errors()


def drop_unfounded_images(model: Reconstruction, kept: Collection[str] = ()) -> list[str]:
    """Remove the poses of images that hardly any point supports, in place; returns their names.

    COLMAP's mapper does so while it grows a model, but does not look at what its last adjustment
    leaves: an image may end without points, or with a negative focal length.

    Args:
        model: The model.
        kept: Names of images that stay, whatever supports them.
    """
    limits = pycolmap.IncrementalMapperOptions()
    manager = pycolmap.ObservationManager(model)
    dropped: list[str] = []
    while True:
        weak = manager.filter_frames(
            limits.min_focal_length_ratio,
            limits.max_focal_length_ratio,
            limits.max_extra_param,
            MIN_OBSERVATIONS,
        )
        names = {i: [model.image(e.id).name for e in model.frame(i).image_ids] for i in weak}
        frames = [frame_id for frame_id in weak if not set(names[frame_id]) & set(kept)]
        if not frames:
            return sorted(dropped)
        for frame_id in frames:
            dropped += names[frame_id]
            manager.deregister_frame(frame_id)
