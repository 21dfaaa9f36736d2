"""Bundle adjustment of a finished model, and what it leaves without support."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np
import pycolmap

from reconstruct.colmap.arrays import model_arrays
from reconstruct.colmap.gps import Prior, pose_priors, transform_model
from reconstruct.colmap.models import Reconstruction
from reconstruct.colmap.rigs import has_rigs, rig_size
from reconstruct.colmap.robust_loss import efficient_scale_px

MIN_OBSERVATIONS = 10
"""An image that observes fewer points loses its pose: COLMAP's limit during mapping."""
SETTLED = 1.3
ROUNDS = 4
QUICK = 20
"""Adjustments of so many steps, this many at most, until the scale of their loss changes by less
than this factor."""


def adjust_robustly(
    model: Reconstruction,
    loss_px: float | Literal["auto"],
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
        loss_px: Scale of the loss. auto: `efficient_loss_px` of the model itself.
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
    solve = _Solver(
        model,
        _parameters(model, constant_cameras, constant_poses, constant_rigs and not refine_rigs),
        threads,
        pose_priors(model, positions) if positions else None,
        metric_rigs=constant_rigs and has_rigs(model),
    )
    if loss_px == "auto":
        _solve_until_settled(model, solve)
    else:
        solve(pixel_scale * loss_px)
    if refine_rigs:
        transform_model(model, size / rig_size(model), np.eye(3), np.zeros(3))
    # Under a robust loss, points that do not fit may drift off, even to infinity: COLMAP's own
    # limits remove them.
    limits = pycolmap.IncrementalMapperOptions()
    manager = pycolmap.ObservationManager(model)
    max_error_px = pixel_scale * limits.filter_max_reproj_error
    manager.filter_all_points3D(max_error_px, limits.filter_min_tri_angle)
    model.update_point_3d_errors()


def efficient_loss_px(model: Reconstruction) -> float:
    """The scale of a Cauchy loss that suits how exact a model's keypoints are, in pixels.

    A point is fitted to its n keypoints, which leaves 2 n - 3 of their 2 n coordinates' errors to
    be seen.
    """
    arrays = model_arrays(model)
    squares = np.square(arrays.xy - arrays.projections()).sum(1)
    track = np.bincount(arrays.point)[arrays.point].clip(min=2)
    return efficient_scale_px(squares * (2 * track / (2 * track - 3)))


def _parameters(
    model: Reconstruction,
    constant_cameras: set[int],
    constant_poses: Collection[str],
    constant_rigs: bool,
) -> pycolmap.BundleAdjustmentConfig:
    """All images of a model, and what of them stays; arguments as of `adjust_robustly`."""
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in model.reg_image_ids():
        config.add_image(image_id)
        if model.images[image_id].name in constant_poses:
            config.set_constant_rig_from_world_pose(model.images[image_id].frame_id)
    for camera_id in constant_cameras & set(model.cameras):
        config.set_constant_cam_intrinsics(camera_id)
    if constant_rigs:
        for rig in model.rigs.values():
            for sensor_id in rig.non_ref_sensors:
                config.set_constant_sensor_from_rig_pose(sensor_id)
    return config


class _Solver:
    """COLMAP's bundle adjustment of one model, in place, under Cauchy losses of any scale.

    Args:
        model: The model.
        config: What is adjusted.
        threads: Number of threads.
        priors: Measured positions that the poses are held to, if there are any.
        metric_rigs: Whether rigs say how large the model is.
    """

    def __init__(
        self,
        model: Reconstruction,
        config: pycolmap.BundleAdjustmentConfig,
        threads: int,
        priors: list[pycolmap.PosePrior] | None,
        *,
        metric_rigs: bool,
    ) -> None:
        self.model, self.config, self.priors = model, config, priors
        self.options = pycolmap.BundleAdjustmentOptions()
        self.options.print_summary = False
        self.options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
        self.options.ceres.solver_options.num_threads = threads
        self.steps = self.options.ceres.solver_options.max_num_iterations
        if priors is None and metric_rigs:
            config.set_constant_rig_from_world_pose(min(model.reg_frame_ids()))
        elif priors is None:
            config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)

    def __call__(self, scale_px: float, max_steps: int | None = None) -> None:
        """Adjust the model. max_steps: None for COLMAP's own limit."""
        self.options.ceres.loss_function_scale = scale_px
        self.options.ceres.solver_options.max_num_iterations = max_steps or self.steps
        if self.priors is None:
            pycolmap.create_default_bundle_adjuster(self.options, self.config, self.model).solve()
            return
        measured = pycolmap.PosePriorBundleAdjustmentOptions()
        measured.ceres.prior_position_loss_function_type = pycolmap.LossFunctionType.CAUCHY
        measured.alignment_ransac.random_seed = 0
        pycolmap.create_pose_prior_bundle_adjuster(
            self.options, measured, self.config, self.priors, self.model
        ).solve()


def _solve_until_settled(model: Reconstruction, solve: _Solver) -> None:
    """Adjust a model, in place, with the loss that suits what the adjustment before has left.

    The first scale comes from a model that squares have drawn towards its bad observations.
    """
    scale_px = efficient_loss_px(model)
    for _ in range(ROUNDS):
        solve(scale_px, QUICK)
        before, scale_px = scale_px, efficient_loss_px(model)
        if before < SETTLED * scale_px:
            break
    solve(scale_px)


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
